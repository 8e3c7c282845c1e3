# Callbacks of a fit: what a user's own types are told of it and may ask of it. Learning-rate schedules and the time budget are here too.

# Gives users' functions one type, so that a fit is compiled once for all of them, with the package.
struct UserFunction
    f::Any
end

(of_user::UserFunction)(arguments...) = of_user.f(arguments...)

# What is behind a `Fit`. Of no variant's own type, so that all that is told to callbacks is compiled once.
mutable struct Loop
    const variant::Variant
    const settings::NamedTuple
    const model::Any
    const state::FitState
    const leaves::Vector{Any}      # Adam's, of each array
    const callbacks::Vector{Any}
    const schedule::Any            # nothing: constant
    epoch::Int
    batch::Int
    batches::Int
    loss::Float64
    accuracy::Float64
    calling::String                # the callback that is being called, in words
    asked::Union{Nothing,String}   # the one that has asked for the end
end

"""
    PhotoFlux.Fit

A fit as a callback sees it; see [`on_batch_end`](@ref). `learning_rate` can be set, all else can be read.

# Fields
- `epoch::Int`, `epochs::Int`: the one that is being trained, from 1, or has just ended; and the most there are.
- `batch::Int`, `batches::Int`: how many batches of this epoch are done, and how many it has.
- `loss::Float64`, `accuracy::Float64`: means over the images of this epoch so far, of the loss with the penalty and of the correct
  predictions; `NaN` before its first batch.
- `history::Vector{NamedTuple}`: a row for each epoch that is over, as in [`Run`](@ref).
- `seconds::Float64`: how long the fit has taken; of one that was resumed with the parts before.
- `learning_rate::Float64`: Adam's, as the last batch was trained with. What it is set to holds until it is set again, or is halved after a loss
  that is not finite, and is in the checkpoints. It cannot be set where a `schedule` does that.
- `settings::NamedTuple`, `variant::Variant`: as in the run.
- `model::Chain`: as it is at that moment, on the device where it is trained. It is not to be changed.
"""
struct Fit
    loop::Loop
end

# What a fit calls and is scheduled by.
struct Hooks
    callbacks::Vector{Any}
    schedule::Any
end

Hooks() = Hooks(Any[], nothing)

function Loop(variant, settings, @nospecialize(model), state, @nospecialize(optimiser), hooks::Hooks, batches)
    leaves = Any[leaf for (_, leaf) in adam_leaves(optimiser)]
    return Loop(variant, settings, model, state, leaves, hooks.callbacks, hooks.schedule, state.epoch, 0, batches, NaN, NaN, "a callback", nothing)
end

const OF_LOOP = (:epoch, :batch, :batches, :loss, :accuracy, :settings, :variant, :model)

Base.propertynames(::Fit) = (OF_LOOP..., :epochs, :history, :seconds, :learning_rate)

function Base.getproperty(fit::Fit, name::Symbol)
    loop = getfield(fit, :loop)
    name in OF_LOOP && return getfield(loop, name)
    name === :epochs && return loop.settings.epochs
    name === :history && return copy(loop.state.history)
    name === :seconds && return seconds_of(loop.state)
    name === :learning_rate && return first(loop.leaves).rule.eta
    throw(ArgumentError("A fit has no `$name`; it has $(join(propertynames(fit), ", "))."))
end

function Base.setproperty!(fit::Fit, name::Symbol, value)
    name === :learning_rate || throw(ArgumentError("Of a fit only `learning_rate` can be set; received: `$name`."))
    loop = getfield(fit, :loop)
    loop.schedule === nothing || throw(ArgumentError("`learning_rate` cannot be set in a fit with the schedule " *
                                                     "\"$(loop.settings.schedule)\", which sets it before each batch. Leave one of the two out."))
    require_positive("learning_rate", value)
    loop.state.learning_rate = Float64(value)
    set_rate!(loop, loop.state.learning_rate)
    return value
end

Base.show(io::IO, fit::Fit) = print(io, "PhotoFlux.Fit of \"", fit.variant.name, "\": epoch ", fit.epoch, " of ", fit.epochs, ", batch ", fit.batch,
    " of ", fit.batches)

# Of a fit that was resumed with the parts before. After an epoch `began` is the time of its end.
seconds_of(state::FitState) = sum(row -> row.seconds, state.history; init=0.0) + (time() - state.began)

function set_rate!(loop::Loop, rate)
    for leaf in loop.leaves
        leaf.rule = KerasAdam(rate, leaf.rule.beta, leaf.rule.epsilon)
    end
    return nothing
end

for (hook, moment) in (
    :on_train_begin => "before the first batch of a fit, and of one that is resumed, whose learning rate stays that of its checkpoint",
    :on_epoch_begin => "before the first batch of an epoch; one that is resumed within goes on without",
    :on_batch_end => "after every batch",
    :on_epoch_end => "after an epoch was validated and its row is in the history, before a checkpoint is written",
    :on_train_end => "when a fit has ended, also by Ctrl-C, and the model has the weights that are kept; not after an error",
)
    @eval begin
        @doc """
            $($hook)(callback, fit)

        What a callback does $($moment): nothing, unless a method is added for its type.

        Any type is a callback that has a method of one of `on_train_begin`, `on_epoch_begin`, `on_batch_end`, `on_epoch_end` and `on_train_end`.
        Ctrl-C waits until it is over. An exception ends the fit and is raised.

        # Arguments
        - `callback`: one of the `callbacks` of [`train`](@ref).
        - `fit`: a [`PhotoFlux.Fit`](@ref): what may be read, and `learning_rate`, which may be set; [`stop!`](@ref) ends it.

        # Returns
        - what it returns is not looked at

        # Throws
        - nothing, unless a method does.

        # Examples
        ```julia
        struct Log end
        PhotoFlux.$($hook)(::Log, fit) = println(fit.epoch, '\\t', fit.batch, '\\t', fit.loss)
        train("l2", "prepared/"; callbacks = [Log()])
        ```
        """ $hook(callback, fit) = nothing
    end
end

const HOOKS = (on_train_begin, on_epoch_begin, on_batch_end, on_epoch_end, on_train_end)

"""
    stop!(fit)

End a fit from a callback: after the running batch, or the epoch that has ended.

An epoch that is ended after some of its batches is validated like any other: its row in the history has the means over these batches, and early
stopping restores the best weights. The run has `ended === :stopped` and a note which callback has asked for that, unless it had come to its end.

# Arguments
- `fit`: the [`PhotoFlux.Fit`](@ref) that the callback was given. Before the first batch of an epoch it asks for the end after that batch.

# Returns
- `nothing`

# Throws
- nothing.
"""
function stop!(fit::Fit)
    loop = getfield(fit, :loop)
    ask!(loop, loop.calling)
    return nothing
end

ask!(loop::Loop, who) = loop.asked === nothing && (loop.asked = who)

# How a note names a callback.
callback_words(callback, hook) = "the callback $(nameof(typeof(callback))) ($(nameof(hook)))"

# Behind a barrier, so that the method that a user adds makes no compiled code invalid.
function tell!(loop::Loop, @nospecialize(hook))
    isempty(loop.callbacks) && return nothing
    fit = Fit(loop)
    for callback in loop.callbacks
        loop.calling = dispatch_barrier(callback_words, callback, hook)::String
        dispatch_barrier(hook, callback, fit)
    end
    return nothing
end

function train_begins!(loop::Loop, resumed)
    (; state) = loop
    loop.epoch, loop.batch = state.epoch, state.sums.batch
    rate = state.learning_rate
    tell!(loop, on_train_begin)
    resumed && state.learning_rate != rate && (state.learning_rate = rate; set_rate!(loop, rate))
    return nothing
end

function epoch_begins!(loop::Loop, batches)
    loop.epoch, loop.batches, loop.batch = loop.state.epoch, batches, loop.state.sums.batch
    loop.batch == 0 || return nothing
    loop.loss = loop.accuracy = NaN
    tell!(loop, on_epoch_begin)
    return nothing
end

# Whether the epoch is to end here.
function batch_ended!(loop::Loop, so_far)
    loop.batch, loop.loss, loop.accuracy = so_far.batch, so_far.loss, so_far.accuracy
    tell!(loop, on_batch_end)
    return loop.asked !== nothing
end

# Where the fit is to end here, how it has ended and a note; one that has come to its end has not been stopped.
function epoch_ended!(loop::Loop, on_note)
    (; state, epoch, batch, batches) = loop
    tell!(loop, on_epoch_end)
    cut = batch < batches
    loop.asked === nothing && return nothing
    cut || state.ended === nothing || return nothing
    state.ended = :stopped
    add_note!(state, on_note, cut ?
        "The fit was stopped in epoch $epoch, after batch $batch of $batches, by $(loop.asked): the training figures of that epoch are those of these batches." :
        "The fit was stopped after epoch $epoch by $(loop.asked).")
    return nothing
end

# Ends a fit by the time that it has taken.
struct MaxTime
    seconds::Float64
end

callback_words(budget::MaxTime, hook) = "`max_time`, $(budget.seconds) s"
on_batch_end(budget::MaxTime, fit) = fit.seconds >= budget.seconds && stop!(fit)
on_epoch_end(budget::MaxTime, fit) = fit.seconds >= budget.seconds && stop!(fit)

# Tells a function, such as one of Python's: it gets a hook's name and what a callback may read, and returns the learning rate to set, 0 if none,
# and who asks for the end, "" if nobody. After each batch it is called where it wants that.
struct Relay
    f::UserFunction
    every_batch::Bool
end

on_train_begin(relay::Relay, fit) = pass_on(relay, "on_train_begin", fit)
on_epoch_begin(relay::Relay, fit) = pass_on(relay, "on_epoch_begin", fit)
on_batch_end(relay::Relay, fit) = relay.every_batch && pass_on(relay, "on_batch_end", fit)
on_epoch_end(relay::Relay, fit) = pass_on(relay, "on_epoch_end", fit)
on_train_end(relay::Relay, fit) = pass_on(relay, "on_train_end", fit)

function pass_on(relay, hook, fit)
    rate, who = relay.f(hook, fit.epoch, fit.epochs, fit.batch, fit.batches, fit.loss, fit.accuracy, fit.seconds, fit.learning_rate)
    rate > 0 && (fit.learning_rate = rate)
    who == "" || ask!(getfield(fit, :loop), "the callback $who ($hook)")
    return nothing
end

"""
    schedule_factor(name, progress, epoch, epochs)

Return what a schedule multiplies the learning rate with. `progress` is the share of all batches of all epochs that are done, from 0 to below 1.

- `"step"`: 0.1ᵏ in the `k`-th third of the epochs, `k` from 0: ×0.1 after each third, constant within an epoch.
- `"cosine"`: ½(1 + cos πp), one period without restarts (Loshchilov & Hutter, "SGDR", ICLR 2017, equation 5 with η_min = 0).
- `"one_cycle"`: up in a line from 1/25 to 1 over the first 30 %, then down by a cosine to 1e-4/25: the policy of Smith & Topin
  ("Super-convergence", 2018) with the numbers of torch's `OneCycleLR`. Adam's β are not cycled.
"""
schedule_factor(name::AbstractString, progress, epoch, epochs) = FACTORS[name](progress, epoch, epochs)

step_factor(_, epoch, epochs) = 0.1^(3 * (epoch - 1) ÷ epochs)
cosine_factor(p, _, _) = (1 + cospi(p)) / 2

const CYCLE_BEGIN, CYCLE_END, CYCLE_UP = 1 / 25, 1e-4 / 25, 0.3

function one_cycle_factor(p, _, _)
    p <= CYCLE_UP && return CYCLE_BEGIN + (1 - CYCLE_BEGIN) * p / CYCLE_UP
    return CYCLE_END + (1 - CYCLE_END) * (1 + cospi((p - CYCLE_UP) / (1 - CYCLE_UP))) / 2
end

const FACTORS = Dict{String,Any}("step" => step_factor, "cosine" => cosine_factor, "one_cycle" => one_cycle_factor)
const SCHEDULES = ("constant", "step", "cosine", "one_cycle")
# The name of a user's own function in a run.
const OWN_SCHEDULE = "own"

# Sets the learning rate of the batch that comes: a function of where it is, so that a fit that is resumed has the same.
function follow_schedule!(loop::Loop)
    loop.schedule === nothing && return nothing
    (; state, batches, settings) = loop
    done = (state.epoch - 1) * batches + state.sums.batch
    progress = done / (settings.epochs * batches)
    factor = dispatch_barrier(factor_of, loop.schedule, progress, state.epoch, settings.epochs)
    factor isa Real && isfinite(factor) && factor >= 0 || throw(ArgumentError(
        "`schedule` must give a finite number, 0 or more; at the progress $progress it gave: $(repr(factor))."))
    set_rate!(loop, state.learning_rate * Float64(factor))
    return nothing
end

factor_of(name::AbstractString, progress, epoch, epochs) = schedule_factor(name, progress, epoch, epochs)
factor_of(own, progress, epoch, epochs) = own(progress)

# The name of a schedule as a run has it; an error where there is no such one.
function schedule_name(schedule::AbstractString)
    schedule in SCHEDULES || throw(unknown_name("schedule", schedule, SCHEDULES))
    return String(schedule)
end

function schedule_name(schedule)
    hasmethod(schedule, Tuple{Float64}) || throw(ArgumentError("`schedule` must be one of $(join(SCHEDULES, ", ")), or a function of a number from 0 to 1; " *
                                                               "received: $(repr(schedule))."))
    return OWN_SCHEDULE
end

# What a fit calls, of the keywords of `train`; an error where a value cannot be used.
function checked_hooks(callbacks, schedule, max_time)
    callbacks isa Union{AbstractVector,Tuple} ||
        throw(ArgumentError("`callbacks` must be a list, such as [$(typeof(callbacks))(…)]; received: $(typeof(callbacks))."))
    foreach(check_callback, callbacks)
    list = collect(Any, callbacks)
    if max_time !== nothing
        require_positive("max_time", max_time)
        push!(list, MaxTime(max_time))
    end
    return Hooks(list, schedule == "constant" ? nothing : schedule)
end

# A method that was added to a function of the user's own, of the same name, would never be called.
function check_callback(callback)
    of_its_own(hook) = which(hook, Tuple{typeof(callback),Fit}) != which(hook, Tuple{Nothing,Nothing})
    any(of_its_own, HOOKS) && return nothing
    throw(ArgumentError("The callback of the type $(typeof(callback)) has no method of $(join(nameof.(HOOKS), ", ", " and ")). Add one: " *
                        "`PhotoFlux.on_epoch_end(callback::$(typeof(callback)), fit) = …`."))
end
