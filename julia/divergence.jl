# A fit whose loss is not finite: what is said of it, and how it goes on with half the learning rate.

"""
    DivergedError(epoch, batch, loss, kept_epoch, run, learning_rate, source, images, largest)

The loss became NaN or infinite. `run` has the last good weights, those of the end of epoch `kept_epoch` (0: the initial).

# Fields
- `epoch::Int`, `batch::Int`, `loss::Float32`: where, and what it became.
- `kept_epoch::Int`, `run::Run`
- `learning_rate::Float64`: of that moment.
- `source::Int`: the batch it came from: this one, or the one before, if the gradient of that one was not finite.
- `images::Vector{Int}`: the images of the batch `source`, by their numbers in the dataset.
- `largest::Vector{Pair{String,Float32}}`: names and values of the largest weights at that moment, of three arrays at most.
"""
struct DivergedError <: Exception
    epoch::Int
    batch::Int
    loss::Float32
    kept_epoch::Int
    run::Run
    learning_rate::Float64
    source::Int
    images::Vector{Int}
    largest::Vector{Pair{String,Float32}}
end

Base.showerror(io::IO, err::DivergedError) = print(io, diverged_text(err, ["image $i" for i in first(err.images, IMAGES_SHOWN)]))

# How many images of a batch, and how many arrays of weights, an error names.
const IMAGES_SHOWN, WEIGHTS_SHOWN = 3, 3

# What is said of it, with the images of the batch by these names.
function diverged_text(err::DivergedError, names)
    of_before = err.source < err.batch ? ": the gradient of batch $(err.source) was not finite" : ""
    kept = err.kept_epoch == 0 ? "the start" : "the end of epoch $(err.kept_epoch)"
    more = length(err.images) > length(names) ? ", … ($(length(err.images)) in all)" : ""
    return string("The loss became ", err.loss, " in epoch ", err.epoch, ", batch ", err.batch, of_before, ". In batch ", err.source, ": ",
        join(names, ", "), more, ". The largest weights: ", join(("$name $value" for (name, value) in err.largest), ", "),
        ". Try a smaller `learning_rate` (it was ", err.learning_rate, "). The weights of ", kept, " were kept.")
end

# Of each array the weight that is largest or not finite, the largest first.
function largest_weights(@nospecialize(model), @nospecialize(optimiser))
    size_of(w) = isfinite(w) ? abs(w) : Inf32
    found = [name => argmax(size_of, Array{Float32}(w)) for ((name, _), w) in zip(adam_leaves(optimiser), Flux.trainables(model))]
    return first(sort!(found; by=size_of ∘ last, rev=true), WEIGHTS_SHOWN)::Vector{Pair{String,Float32}}
end

# The batch whose loss or gradient was not finite: where weights are not finite, a step has made them so, which was not made for this batch.
function source_of_failure(model, batch)
    broken = any(w -> !all(isfinite, w), Flux.trainables(model))
    return broken && batch > 1 ? batch - 1 : batch
end

# The numbers of the images of a batch in the dataset.
function batch_images(data, rows, (; seed, balance, batch_size), epoch, batch)
    items = epoch_items(data, seed, epoch, balance)
    chosen = items[((batch - 1) * batch_size + 1):min(batch * batch_size, end)]
    return unique(rows[item.index] for item in chosen)
end

# How often a fit goes on with half the learning rate.
const MOST_HALVINGS = 3

# Begins the epoch again, at the weights that were restored, with half the learning rate.
function halve!(state::FitState, @nospecialize(optimiser), err, on_note)
    before = state.learning_rate
    state.learning_rate, state.halvings = before / 2, state.halvings + 1
    restart_adam!(optimiser, state.learning_rate)
    begin_epoch!(state, state.epoch)
    add_note!(state, on_note, string("The loss became ", err.loss, " in epoch ", err.epoch, ", batch ", err.batch, ": the fit went on from ",
        err.kept_epoch == 0 ? "the start" : "the end of epoch $(err.kept_epoch)", " with the learning rate ", state.learning_rate, " in place of ",
        before, " (", state.halvings, " of ", MOST_HALVINGS, " times)."))
    return nothing
end
