# Where a fit stands between two batches: all that it needs to go on, beside the model and Adam's moments.

# Running sums of an epoch; the losses are summed over images.
mutable struct Sums
    batch::Int
    images::Int
    hits::Int
    loss::Float64
    penalty::Float64
end

Sums() = Sums(0, 0, 0, 0.0, 0.0)

# Watches the total validation loss as keras.callbacks.EarlyStopping does: only a strictly smaller value is better.
mutable struct EarlyStopping
    const patience::Int
    best::Float64
    best_epoch::Int
    best_weights::Any
end

EarlyStopping(patience::Int) = EarlyStopping(patience, Inf, 0, nothing)

function should_stop!(stopping::EarlyStopping, epoch, total, model)
    if total < stopping.best
        stopping.best, stopping.best_epoch = total, epoch
        stopping.best_weights = copy_weights!(stopping.best_weights, model)
    end
    return epoch - stopping.best_epoch >= stopping.patience
end

should_stop!(::Nothing, epoch, total, model) = false

# The arrays that a fit changes: those with a gradient, and the statistics of norms.
fitted_arrays(model) = append!(AbstractArray[], Flux.trainables(model), statistics(model))

copy_weights!(::Nothing, model) = deepcopy(fitted_arrays(model))
copy_weights!(kept, model) = (foreach(copyto!, kept, fitted_arrays(model)); kept)
restore_weights!(model, kept) = foreach(copyto!, fitted_arrays(model), kept)

# `epoch` is the one that is being trained, `began` when that began, less by what it had taken before it was resumed. `dropout`: the states
# of the layers' generators after the last batch. `good`: the weights of the end of the epoch before.
mutable struct FitState
    epoch::Int
    sums::Sums
    began::Float64
    dropout::Vector{UInt64}
    learning_rate::Float64
    halvings::Int
    ended::Union{Nothing,Symbol}
    const history::Vector{NamedTuple}
    const good::Any
    const stopping::Union{Nothing,EarlyStopping}
    const notes::Vector{String}
end

function FitState(model, learning_rate, patience)
    stopping = patience === nothing ? nothing : EarlyStopping(patience)
    return FitState(1, Sums(), time(), UInt64[], learning_rate, 0, nothing, NamedTuple[], copy_weights!(nothing, model), stopping, String[])
end

begin_epoch!(state::FitState, epoch) = (state.epoch = epoch; state.sums = Sums(); state.began = time(); state)

# The arrays that Adam has a leaf for, in the order of Flux's trainables, by where they are in the model.
function adam_leaves(@nospecialize(tree), path::String="", found::Vector{Pair{String,Any}}=Pair{String,Any}[])
    if tree isa Optimisers.Leaf
        push!(found, path => tree)
    elseif tree isa Union{NamedTuple,Tuple}
        for key in keys(tree)
            adam_leaves(tree[key], path == "" ? (key === :layers ? "" : string(key)) : string(path, '.', key), found)
        end
    end
    return found
end

# Adam begins anew, with another rate.
function restart_adam!(@nospecialize(optimiser), learning_rate)
    for (_, leaf) in adam_leaves(optimiser)
        m, v, _ = leaf.state
        leaf.rule, leaf.state = KerasAdam(learning_rate, leaf.rule.beta, leaf.rule.epsilon), (fill!(m, 0), fill!(v, 0), 0)
    end
    return optimiser
end
