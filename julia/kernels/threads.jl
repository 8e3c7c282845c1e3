# The threads of a training step: a team that is awake from the step's start to its end, and lists of jobs that it shares.

"""
    foreach_job(work, jobs)

Call `work(job, worker)` for every job from 1 to `jobs`, on the threads of the running [`with_thread_team`](@ref).

A thread takes the next job when it is free, because cores are seldom all idle. So what jobs sum must be summed for each job,
and the jobs' sums in their order: then no result depends on the number of threads.

# Arguments
- `work`: `worker` is 1 to `max_workers(jobs)`, and no two jobs run at a time with the same. It computes only: a job that waited
  for a timer, a file or another task could wait forever, because the caller's thread, which serves these, waits awake.

# Throws
- what a job throws, the first if several do; no further job is begun.
"""
function foreach_job(work::F, jobs::Integer) where {F}
    team, workers = running_team(), max_workers(jobs)
    team === nothing && workers > 1 && return with_thread_team(() -> foreach_job(work, jobs))
    if workers <= 1 || @atomic team.open
        return foreach(job -> work(job, 1), 1:jobs)
    end
    next = Threads.Atomic{Int}(1)
    function take_jobs(worker)
        worker <= workers || return nothing
        try
            while (job = Threads.atomic_add!(next, 1)) <= jobs
                work(job, worker)
            end
        catch
            next[] = jobs + 1
            rethrow()
        end
        return nothing
    end
    return run_jobs!(team, take_jobs, workers)
end

running_team() = get(task_local_storage(), :photoflux_team, nothing)::Union{ThreadTeam,Nothing}

# The workspaces that `foreach_job` needs at most.
function max_workers(jobs::Integer)
    team = running_team()
    return min(jobs, team === nothing ? Threads.nthreads() : team.size)
end

"""
    foreach_range(f, n, size = 2^16)

Call `f(range)` for ranges of `size` numbers, and one shorter, that are together `1:n`, as the jobs of [`foreach_job`](@ref).
"""
function foreach_range(f::F, n::Integer, size::Integer=2^16) where {F}
    foreach_job((job, _) -> f((1 + (job - 1) * size):min(job * size, n)), cld(n, size))
end

# What waits awake for lists of jobs, until the team is done or has no more use for it.
mutable struct Helper
    @atomic stays::Bool
end

# To wake a sleeping thread takes longer than many a layer, so helpers wait awake for the next list of jobs. They are started
# when a list first has work for them, and end when many lists in a row had none. Whoever has a list of jobs begins at once, and
# helpers join when they see it.
mutable struct ThreadTeam
    const size::Int                # threads at most, the caller's own included
    const helpers::Vector{Helper}  # those awake, by their numbers as workers, from 2 on
    narrow::Int                    # lists in a row that had no work for the last of them
    widest::Int                    # how many these had work for at most
    work::Any                  # called with a worker's number while a list is open
    @atomic failure::Any       # the first that a helper met in the running list
    @atomic round::Int         # counts the lists
    @atomic open::Bool
    @atomic inside::Int        # helpers that look at the running list
    @atomic done::Bool
    ThreadTeam(size) = new(size, Helper[], 0, 0, nothing, nothing, 0, false, 0, false)
end

"""
    with_thread_team(f; size = min(Threads.nthreads(), Sys.CPU_THREADS))

Return `f()`, in which [`foreach_job`](@ref) finds up to `size` threads awake. Within another team it uses that one.
"""
function with_thread_team(f::F; size::Integer=min(Threads.nthreads(), Sys.CPU_THREADS)) where {F}
    storage = task_local_storage()
    running_team() === nothing || return f()
    team = storage[:photoflux_team] = ThreadTeam(size)
    try
        return f()
    finally
        delete!(storage, :photoflux_team)
        @atomic team.done = true
    end
end

# A helper is counted inside before it looks whether the list is still open, and the list is closed before those inside are
# counted: so no helper can be at work when `run_jobs!` returns. One that is sent away is told so between two lists, before another
# can be given its number.
function help(team::ThreadTeam, helper::Helper, worker)
    seen, pauses = 0, 0
    while (@atomic helper.stays) && !(@atomic team.done)
        if (@atomic team.open) && (@atomic team.round) != seen
            pauses = 0
            @atomic team.inside += 1
            if (@atomic team.open) && (@atomic helper.stays)
                seen = @atomic team.round
                try
                    invokelatest(team.work, worker)
                catch err
                    @atomicreplace team.failure nothing => err
                end
            end
            @atomic team.inside -= 1
        else
            spin_pause(pauses += 1)
        end
    end
end

function run_jobs!(team::ThreadTeam, work, workers)
    gather_helpers!(team, workers - 1)
    team.work = work
    @atomic team.failure = nothing
    @atomic team.round += 1
    @atomic team.open = true
    try
        work(1)
    finally
        @atomic team.open = false
        # Ctrl-C comes after this: no helper may go on writing into arrays that the caller has given up.
        disable_sigint(() -> wait_for_helpers(team))
        team.work = nothing
    end
    failure = @atomic team.failure
    failure === nothing || throw(failure)
    return nothing
end

# How many lists in a row helpers wait for without work.
const NARROW_LISTS = 16

# Starts helpers that a list needs, and ends those that many lists had no work for.
function gather_helpers!(team, needed)
    (; helpers) = team
    if needed < length(helpers)
        team.narrow, team.widest = team.narrow + 1, max(team.widest, needed)
        team.narrow < NARROW_LISTS && return nothing
        foreach(helper -> (@atomic helper.stays = false), @view helpers[(team.widest + 1):end])
        resize!(helpers, team.widest)
    end
    team.narrow = team.widest = 0
    while length(helpers) < needed
        let helper = Helper(true), worker = length(helpers) + 2
            push!(helpers, helper)
            Threads.@spawn help(team, helper, worker)
        end
    end
    return nothing
end

function wait_for_helpers(team)
    pauses = 0
    while (@atomic team.inside) > 0
        spin_pause(pauses += 1)
    end
end

# One turn of a loop that waits. Now and then the core is offered to others: where there are more threads than idle cores, the
# thread that is waited for may have none.
function spin_pause(pauses)
    ccall(:jl_cpu_pause, Cvoid, ())
    GC.safepoint()
    pauses % 64 == 0 && yield_core()
    return nothing
end

yield_core() = @static Sys.iswindows() ? ccall((:SwitchToThread, "kernel32"), stdcall, Cint, ()) : ccall(:sched_yield, Cint, ())

# BLAS is left the smallest layers, where its threads cost more than they bring; what the host process had set is set
# again afterwards.
function with_one_blas_thread(f::F) where {F}
    before = BLAS.get_num_threads()
    before == 1 && return f()
    BLAS.set_num_threads(1)
    try
        return f()
    finally
        BLAS.set_num_threads(before)
    end
end

# Our threads awake and BLAS's out of the way.
on_all_threads(f::F) where {F} = with_thread_team(() -> with_one_blas_thread(f))

# The same where f() computes only, as kernels do. What starts tasks and waits for them, as NNlib does, could wait forever there, and is called as
# it is.
on_all_threads(f::F, computes_only::Bool) where {F} = computes_only ? on_all_threads(f) : f()
