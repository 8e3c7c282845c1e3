# Vectors of Float32 as wide as the processor's, and the threads' work list: what the kernels of conv.jl, winograd.jl and
# products.jl are made of. The width is fixed when the package is precompiled, which Julia does anew for another kind of
# processor.
const LANES = if Sys.ARCH === :x86_64
    Base.BinaryPlatforms.CPUID.test_cpu_feature(Base.BinaryPlatforms.CPUID.JL_X86_avx512f) ? 16 : 8
else
    4
end

# Sums held in registers at a time, of 32 registers or of the 16 that x86 has without AVX-512.
const MANY_REGISTERS = LANES != 8

const Vec = NTuple{LANES,VecElement{Float32}}

@eval begin
    @inline splat(x::Float32) = Base.llvmcall(
        $("""
        %a = insertelement <$LANES x float> undef, float %0, i32 0
        %b = shufflevector <$LANES x float> %a, <$LANES x float> undef, <$LANES x i32> zeroinitializer
        ret <$LANES x float> %b"""), Vec, Tuple{Float32}, x)
    # Not maxnum, which would hide a NaN.
    @inline positive(v::Vec) = Base.llvmcall(
        $("""
        %c = fcmp olt <$LANES x float> %0, zeroinitializer
        %r = select <$LANES x i1> %c, <$LANES x float> zeroinitializer, <$LANES x float> %0
        ret <$LANES x float> %r"""), Vec, Tuple{Vec}, v)
    # v where the first is above 0, else 0.
    @inline where_positive(y::Vec, v::Vec) = Base.llvmcall(
        $("""
        %c = fcmp ogt <$LANES x float> %0, zeroinitializer
        %r = select <$LANES x i1> %c, <$LANES x float> %1, <$LANES x float> zeroinitializer
        ret <$LANES x float> %r"""), Vec, Tuple{Vec,Vec}, y, v)
    @inline add_vec(a::Vec, b::Vec) =
        Base.llvmcall($("%r = fadd <$LANES x float> %0, %1\nret <$LANES x float> %r"), Vec, Tuple{Vec,Vec}, a, b)
    @inline sub_vec(a::Vec, b::Vec) =
        Base.llvmcall($("%r = fsub <$LANES x float> %0, %1\nret <$LANES x float> %r"), Vec, Tuple{Vec,Vec}, a, b)
    @inline muladd_vec(a::Vec, b::Vec, c::Vec) =
        ccall($("llvm.fmuladd.v$(LANES)f32"), llvmcall, Vec, (Vec, Vec, Vec), a, b, c)
end

# Groups of `size` lanes in turn from a and from b: of the first group of each two, and of the second.
function exchange(size, second)
    lanes = join(("i32 $(l & size == 0 ? l + second * size : LANES + l - (1 - second) * size)" for l in 0:(LANES - 1)), ", ")
    return """
        %r = shufflevector <$LANES x float> %0, <$LANES x float> %1, <$LANES x i32> <$lanes>
        ret <$LANES x float> %r"""
end

for size in (2^i for i in 0:(trailing_zeros(LANES) - 1))
    @eval @inline exchange_low(a::Vec, b::Vec, ::Val{$size}) =
        Base.llvmcall($(exchange(size, 0)), Vec, Tuple{Vec,Vec}, a, b)
    @eval @inline exchange_high(a::Vec, b::Vec, ::Val{$size}) =
        Base.llvmcall($(exchange(size, 1)), Vec, Tuple{Vec,Vec}, a, b)
end

# Pointers count in bytes; `at` counts in Float32.
@inline at(p::Ptr{Float32}, n::Integer) = p + 4n
@inline load_vec(p::Ptr{Float32}) = unsafe_load(Ptr{Vec}(p))
@inline store_vec(p::Ptr{Float32}, v::Vec) = unsafe_store!(Ptr{Vec}(p), v)

# Asks for the values at p, which are soon needed, into the second cache. By an integer, and in the words of an LLVM whose pointers
# have types, which newer ones still read: Julia 1.10, 1.11 and 1.12 take this, and no one form of `ccall`.
@inline prefetch(p::Ptr{Float32}) = Base.llvmcall(("""
    declare void @llvm.prefetch.p0i8(i8*, i32, i32, i32)
    define void @entry(i64 %0) alwaysinline {
        %p = inttoptr i64 %0 to i8*
        call void @llvm.prefetch.p0i8(i8* %p, i32 0, i32 2, i32 1)
        ret void
    }""", "entry"), Cvoid, Tuple{UInt64}, UInt64(UInt(p)))

# The first n lanes only.
function store_vec(p::Ptr{Float32}, v::Vec, n::Integer)
    n >= LANES && return store_vec(p, v)
    for i in 1:n
        unsafe_store!(p, v[i].value, i)
    end
end

# to[i, k] = from[k, i] for a square of vectors, whose columns lie that far apart; where `mask` is given, only what is
# above 0 there. Halves, quarters, … of the square change places.
@generated function turn_square!(to::Ptr{Float32}, to_step::Int, from::Ptr{Float32}, from_step::Int, mask::Ptr{Float32})
    v = [Symbol(:v, i) for i in 1:LANES]
    code = [:($(v[i]) = load_vec(at(from, $(i - 1) * from_step))) for i in 1:LANES]
    masked = [:($(v[i]) = where_positive(load_vec(at(mask, $(i - 1) * from_step)), $(v[i]))) for i in 1:LANES]
    push!(code, :(mask == C_NULL || $(Expr(:block, masked...))))
    size_ = LANES ÷ 2
    while size_ > 0
        for i in 0:(LANES - 1)
            i & size_ == 0 || continue
            a, b = v[i + 1], v[i + size_ + 1]
            push!(code, :(($a, $b) = (exchange_low($a, $b, Val($size_)), exchange_high($a, $b, Val($size_)))))
        end
        size_ ÷= 2
    end
    return quote
        $(code...)
        $([:(store_vec(at(to, $(i - 1) * to_step), $(v[i]))) for i in 1:LANES]...)
        return nothing
    end
end

function sum_lanes(p::Ptr{Float32})
    total = 0.0f0
    @simd for i in 1:LANES
        total += unsafe_load(p, i)
    end
    return total
end

function clear!(p::Ptr{Float32}, n::Integer)
    @simd ivdep for i in 1:n
        unsafe_store!(p, 0.0f0, i)
    end
end

blocks(n::Integer, size::Integer) = cld(n, size) * size

# The threads of one step. To wake a sleeping thread takes longer than many a layer, so helpers spin from the step's start
# to its end; whoever calls `share` begins at once, and helpers join when they see it.
mutable struct Team
    work::Any
    failure::Any
    @atomic round::Int
    @atomic open::Bool
    @atomic inside::Int
    @atomic done::Bool
    Team() = new(nothing, nothing, 0, false, 0, false)
end

# Calls work(job, worker) for every job; a thread takes the next one when it is free, because cores are seldom all idle.
# What is summed is summed per job and then in the jobs' order, so that no result depends on the threads.
function share(work::F, jobs::Integer) where {F}
    workers = min(jobs, Threads.nthreads())
    team = get(task_local_storage(), :photoflux_team, nothing)::Union{Team,Nothing}
    if workers <= 1 || team !== nothing && @atomic team.open
        return foreach(job -> work(job, 1), 1:jobs)
    end
    next = Threads.Atomic{Int}(1)
    function take_jobs(worker)
        worker <= workers || return nothing
        while true
            job = Threads.atomic_add!(next, 1)
            job <= jobs || return nothing
            work(job, worker)
        end
    end
    if team === nothing
        @sync for worker in 1:workers
            Threads.@spawn take_jobs(worker)
        end
    else
        rally(team, take_jobs)
    end
    return nothing
end

"""
    with_team(f)

Return `f()`, in which [`share`](@ref) finds the other threads awake.
"""
function with_team(f::F) where {F}
    storage = task_local_storage()
    (Threads.nthreads() == 1 || haskey(storage, :photoflux_team)) && return f()
    team = Team()
    for worker in 2:Threads.nthreads()
        Threads.@spawn help(team, worker)
    end
    storage[:photoflux_team] = team
    try
        return f()
    finally
        delete!(storage, :photoflux_team)
        @atomic team.done = true
    end
end

# A helper is counted inside before it looks whether the work is still open, and the work is closed before those inside
# are counted: so nobody can be at work when `rally` returns.
function help(team::Team, worker)
    seen = 0
    while !(@atomic team.done)
        if (@atomic team.open) && (@atomic team.round) != seen
            @atomic team.inside += 1
            if @atomic team.open
                seen = @atomic team.round
                try
                    team.work(worker)
                catch err
                    team.failure = err
                end
            end
            @atomic team.inside -= 1
        else
            breathe()
        end
    end
end

function rally(team::Team, work)
    team.work = work
    @atomic team.round += 1
    @atomic team.open = true
    try
        work(1)
    finally
        @atomic team.open = false
        while (@atomic team.inside) > 0
            breathe()
        end
        team.work = nothing
    end
    team.failure === nothing || throw(team.failure)
    return nothing
end

breathe() = (ccall(:jl_cpu_pause, Cvoid, ()); GC.safepoint())

"""
    Buffers()

Arrays that one training step leaves to the next, by name; each is as large as the largest that was asked for.

What [`buffer`](@ref) returns points into it and is good until the same name is asked for again.
"""
struct Buffers
    arrays::Dict{Tuple{Symbol,Symbol},Vector{Float32}}
    bytes::Dict{Tuple{Symbol,Symbol},Vector{UInt8}}
end

Buffers() = Buffers(Dict{Tuple{Symbol,Symbol},Vector{Float32}}(), Dict{Tuple{Symbol,Symbol},Vector{UInt8}}())

function buffer(arrays::Dict{Tuple{Symbol,Symbol},Vector{T}}, key, dims::Dims{N}) where {T,N}
    n = prod(dims)
    array = get(arrays, key, nothing)
    if array === nothing || length(array) < n
        delete!(arrays, key)
        array = arrays[key] = Vector{T}(undef, n)
    end
    return unsafe_wrap(Array, pointer(array), dims)::Array{T,N}
end

buffer(b::Buffers, name::Symbol, role::Symbol, dims...) = buffer(b.arrays, (name, role), dims)
byte_buffer(b::Buffers, name::Symbol, role::Symbol, dims...) = buffer(b.bytes, (name, role), dims)

# A layer's input gradient is read by the layer before only, so two arrays in turn do for all: the one where `dy` is not.
function gradient_buffer(b::Buffers, dy, dims::Dims)
    kept = get(b.arrays, (:gradient, :first), nothing)
    role = kept !== nothing && pointer(kept) == pointer(dy) ? :second : :first
    return buffer(b.arrays, (:gradient, role), dims)
end

# What the last call of `with_buffers` left, unless the collector took it meanwhile.
const SPARE = Ref{WeakRef}()
const SPARE_LOCK = ReentrantLock()

# f(buffers), with the arrays of an earlier call if there are some that nobody uses.
function with_buffers(f::F) where {F}
    kept = @lock SPARE_LOCK begin
        value = isassigned(SPARE) ? SPARE[].value : nothing
        SPARE[] = WeakRef(nothing)
        value
    end
    buffers = kept === nothing ? Buffers() : kept::Buffers
    try
        return f(buffers)
    finally
        @lock SPARE_LOCK SPARE[] = WeakRef(buffers)
    end
end
