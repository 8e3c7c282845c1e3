"""
    Run

What [`train`](@ref) returns.

# Fields
- `variant::Variant`
- `model::Chain`: with the kept weights.
- `history::Vector{NamedTuple}`: a row per finished epoch: `epoch`, `seconds`, and `train_…` and `validation_…` `loss`,
  `penalty`, `total`, `accuracy`.
- `kept_epoch::Int`: the epoch whose weights the model has; 0 if none was finished.
- `ended::Symbol`: `:epochs`, `:early_stopping` or `:interrupted`; of a run that Python wrote, also `:diverged`, or
  `:adopted`: imported from Keras.
- `input::NTuple{3,Int}`: width, height and channels of its images; of a fit to features without their images 1, 1 and how many.
- `classes::Vector{String}`
- `settings::NamedTuple`: `epochs`, `batch_size`, `learning_rate`, `seed`, `balance`.
- `data::NamedTuple`: `name` and `fingerprint` of the prepared dataset, and what else is known of it: `path`, `seed` of its
  split, `images`, `positive`, `groups`, `made_from`.
- `initial::Union{Nothing,NamedTuple}`: where the first weights came from, the `path` of a run or file (`nothing`: a run
  in memory) and the `fingerprint` of its weights ([`fingerprint`](@ref)); `nothing`: drawn from the seed.
- `seen`: which images the weights have seen; [`evaluate`](@ref) does not score them as new ones.
- `backbone::Union{Nothing,PhotoFlux.RunBackbone}`: what makes features of its images, on which the model is; `nothing`: the model
  takes them as they are.
"""
struct Run
    variant::Variant
    model::Chain
    history::Vector{NamedTuple}
    kept_epoch::Int
    ended::Symbol
    input::NTuple{3,Int}
    classes::Vector{String}
    settings::NamedTuple
    data::NamedTuple
    initial::Union{Nothing,NamedTuple}
    seen::Seen
    backbone::Union{Nothing,RunBackbone}
end

layers(run::Run) = layers(run.variant, head_input(run.input, run.backbone), length(run.classes))

function Base.show(io::IO, ::MIME"text/plain", run::Run)
    print(io, "Run of \"", run.variant.name, "\" on ", run.data.name, ": ", length(run.history), " epochs")
    run.ended in (:epochs, :adopted) || print(io, " (ended by ", replace(string(run.ended), '_' => ' '), ")")
    run.initial === nothing || print(io, ", from ", something(run.initial.path, "a run in memory"))
    run.backbone === nothing || print(io, "\n  on ", run.backbone.entry["features"], " features by ", run.backbone.entry["name"])
    if run.kept_epoch > 0
        row = run.history[run.kept_epoch]
        print(io, "\n  epoch ", run.kept_epoch, " kept: validation total ", @sprintf("%.4f", row.validation_total))
        print(io, ", accuracy ", @sprintf("%.4f", row.validation_accuracy))
    end
end

"""
    DivergedError(epoch, batch, loss, kept_epoch, run)

The loss became NaN or infinite. `run` has the last good weights, those of the end of epoch `kept_epoch` (0: the initial).
"""
struct DivergedError <: Exception
    epoch::Int
    batch::Int
    loss::Float32
    kept_epoch::Int
    run::Run
end

function Base.showerror(io::IO, err::DivergedError)
    print(io, "The loss became ", err.loss, " in epoch ", err.epoch, ", batch ", err.batch, ". Try a smaller ")
    print(io, "`learning_rate` (it was ", err.run.settings.learning_rate, "). The weights of ")
    print(io, err.kept_epoch == 0 ? "the start" : "the end of epoch $(err.kept_epoch)", " were kept.")
end

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

copy_weights!(::Nothing, model) = deepcopy(Flux.trainables(model))
copy_weights!(kept, model) = (foreach(copyto!, kept, Flux.trainables(model)); kept)
restore_weights!(model, kept) = foreach(copyto!, Flux.trainables(model), kept)

"""
    train(variant, data; epochs, batch_size, learning_rate, seed = 42, balance, initial, on_batch, on_epoch)

Train a variant's model on the training part of a prepared dataset.

Initial weights, batch order, dropout and augmentation are fixed by `seed`. The last, short batch of an epoch is used.
Where the variant stops early, the best epoch's weights are restored, also when the epochs run out first.
Ctrl-C ends the fit after the running batch and returns the run so far.

A variant on a backbone (`"transfer"`, …) is fitted to the features that its backbone makes of the training and validation images,
which are computed once, at the start; the [`Run`](@ref) has the backbone, and takes images. Its penalties are those of the table, or of
`variant("transfer"; l2=0.003)`; Python chooses the L2 coefficient by cross-validation.

# Arguments
- `variant`: a name of the table, or a [`Variant`](@ref).
- `data`: a [`PreparedDataset`](@ref), or a folder for [`open_dataset`](@ref); for a variant on a backbone of images, or of features.
- `epochs::Integer`, `batch_size::Integer`, `learning_rate::Real`: the variant's own unless given.
- `seed::Integer`: any integer, of any number of digits.
- `balance::AbstractString`: the variant's own unless given: `"none"`; `"weights"`, each image's loss times N / (K · size of its class); or `"augment"`,
  every smaller class topped up each epoch with augmented copies ([`epoch_items`](@ref)).
- `initial`: a [`Run`](@ref), or the path of a run or a weights file, from whose weights the fit starts; `nothing`: from
  those that the seed gives. Adam's moments start at zero either way.
- `on_batch`: called after every batch with a `NamedTuple` (`epoch`, `epochs`, `batch`, `batches`, `images`, `waited`,
  the seconds for which the batch's images were waited for, and the means of this epoch so far `loss`, `accuracy`); the
  fit ends there if it returns `true`.
- `on_epoch`: called with each new row of the history.

# Returns
- [`Run`](@ref)

# Throws
- `ArgumentError`: a value that cannot be used.
- `DimensionMismatch`: `initial` has weights of other shapes; both are listed.
- [`DivergedError`](@ref): the loss became NaN or infinite.

# Examples
```julia
run = train("l2", "prepared/"; epochs = 5, on_epoch = println)
evaluate(run, "prepared/").accuracy
run = train(variant("transfer"; backbone = "efficientnet-lite0"), "prepared/")
```
"""
train(name::AbstractString, data; kwargs...) = train(variant(name), data; kwargs...)

function train(v::Variant, folder::AbstractString; seed::Integer=42, kwargs...)
    return train(v, open_dataset(folder; seed); seed, kwargs...)
end

function train(
    v::Variant,
    data::PreparedDataset;
    epochs::Integer=v.epochs,
    batch_size::Integer=v.batch_size,
    learning_rate::Real=v.learning_rate,
    seed::Integer=42,
    balance::AbstractString=v.balance,
    initial::Union{Nothing,Run,AbstractString}=nothing,
    on_batch=Returns(false),
    on_epoch=Returns(nothing),
)
    settings = checked_settings(data; epochs, batch_size, learning_rate, seed, balance)
    check_kind(v, data, balance)
    return fit(v, data, settings, initial, Callback(on_batch), Callback(on_epoch))
end

# The settings of a fit to this data, in the types that a run has; an error where they cannot be used.
function checked_settings(data; epochs, batch_size, learning_rate, seed, balance)
    require_whole("epochs", 1, epochs)
    require_whole("batch_size", 1, batch_size)
    require_positive("learning_rate", learning_rate)
    balance in BALANCES || throw(unknown_name("balance", balance, BALANCES))
    for part in (:train, :validation)
        isempty(indices(data, part)) && throw(ArgumentError("The $part part of $(data.name) has no images."))
    end
    return (; epochs=Int(epochs), batch_size=Int(batch_size), learning_rate=Float64(shortest(Float32(learning_rate))),
        seed=typemin(Int) <= seed <= typemax(Int) ? Int(seed) : BigInt(seed), balance=String(balance))
end

# Refuses features where a variant takes images, and changed copies of images where it takes features.
function check_kind(v, data, balance)
    if !takes_features(v) && holds_features(data)
        throw(ArgumentError("The variant \"$(v.name)\" is fitted to images, and $(data.name) holds a backbone's features. " *
                            "Give the prepared dataset of the images, or a transfer variant."))
    elseif takes_features(v) && balance == "augment"
        throw(ArgumentError("`balance` cannot be \"augment\" on features: there are no images to change. Make the features " *
                            "with `views`, which has changed copies of the training images, or take \"weights\"."))
    end
end

# Gives users' functions one type, so that a fit is compiled once for all of them, with the package.
struct Callback
    f::Any
end

(callback::Callback)(arguments...) = callback.f(arguments...)

# The types of model and loss are known in `fit!` only, which is therefore compiled for them.
function fit(v, data, settings, initial, on_batch::Callback, on_epoch::Callback)
    K, seen, input, backbone = length(data.classes), Seen(data, seen_before(initial)), image_shape(data), nothing
    if takes_features(v) && !holds_features(data)
        backbone = RunBackbone(v.backbone, input)
        v = variant(v; backbone=backbone.entry["name"])
        data = features_dataset(backbone, data, findall(<=(1), data.split))
    end
    list = layers(v, image_shape(data), K)
    model = build_model(list; rng=derived_rng(settings.seed, "weights"))
    return dispatch_barrier(fit!, model, list, loss_of(v.loss, K), v, data, settings, initial, on_batch, on_epoch; seen, input, backbone)::Run
end

# `seen`, `input` and `backbone` are those of the run. With `from_start` the weights of the start are the best until an epoch has better ones.
function fit!(
    model, list, loss, v, data, settings, initial, on_batch, on_epoch; seen, input=first(list).shape, backbone=nothing, from_start=false,
)
    (; epochs, batch_size, learning_rate) = settings
    origin = start_from!(model, list, initial, data)
    penalties = kernel_penalties(list)
    optimiser = Optimisers.setup(KerasAdam(learning_rate), model)
    stopping = v.patience === nothing ? nothing : EarlyStopping(v.patience)
    history = NamedTuple[]
    good = copy_weights!(nothing, model)
    buffers = Buffers()
    ended::Symbol = :epochs
    finished(kept_epoch) = Run(v, model, history, kept_epoch, ended, input, data.classes, settings,
        (; data.name, data.fingerprint, data.about...), origin, seen, backbone)
    function diverged(epoch, batch, loss)
        restore_weights!(model, good)
        throw(DivergedError(epoch, batch, loss, epoch - 1, finished(epoch - 1)))
    end

    try
        if from_start && stopping !== nothing
            should_stop!(stopping, 0, evaluate(model, data, v; part=:validation, batch_size).total, model)
        end
        for epoch in 1:epochs
            start = time()
            training = train_epoch!(model, optimiser, loss, penalties, data, epoch, settings, on_batch, buffers)
            if training === :interrupted
                ended = :interrupted
                break
            end
            isfinite(training.loss) || diverged(epoch, training.batch, training.loss)
            validation = evaluate(model, data, v; part=:validation, batch_size)
            # The epoch's last step can make the weights non-finite too, which only the validation loss shows.
            isfinite(validation.total) || diverged(epoch, training.batch, validation.total)
            copy_weights!(good, model)
            # An interrupt is handled before or after both, so that `on_epoch` gets exactly the rows of the history.
            disable_sigint() do
                push!(history, history_row(epoch, time() - start, training, validation))
                on_epoch(last(history))
                # Otherwise the garbage of some twenty epochs gathers before a collection.
                GC.gc(false)
            end
            if should_stop!(stopping, epoch, validation.total, model)
                ended = epoch < epochs ? :early_stopping : :epochs
                break
            end
        end
    catch err
        is_interrupt(err) || rethrow()
        ended = :interrupted
    end
    if stopping !== nothing && stopping.best_weights !== nothing
        restore_weights!(model, stopping.best_weights)
        return finished(stopping.best_epoch)
    end
    return finished(length(history))
end

# Also an interrupt that was thrown in a task that was waited for.
is_interrupt(err) = err isa InterruptException || err isa TaskFailedException && is_interrupt(err.task.result)

seen_before(run::Run) = run.seen

# Copies the initial weights into the model, or without any measures what they standardise by; returns the `initial` of the run.
function start_from!(model, list, ::Nothing, data)
    foreach(name -> measure!(model[name], data.images, indices(data, :train)), standardisations(list))
    return nothing
end

function start_from!(model, list, run::Run, data)
    load_weights!(model, Dict(canonical_weights(run.model, layers(run))), list; source="the weights of the run")
    return (; path=nothing, fingerprint=fingerprint(model, list))
end

function start_from!(model, list, path::AbstractString, data)
    weights = abspath(isdir(path) ? joinpath(path, "weights.safetensors") : path)
    load_weights!(model, weights, list)
    place = isfile(joinpath(dirname(weights), "run.json")) ? dirname(weights) : weights
    return (; path=realpath(place), fingerprint=fingerprint(model, list))
end

history_row(epoch, seconds, training, validation) = (;
    epoch,
    seconds,
    train_loss=training.loss,
    train_penalty=training.penalty,
    train_total=training.loss + training.penalty,
    train_accuracy=training.accuracy,
    validation_loss=validation.loss,
    validation_penalty=validation.penalty,
    validation_total=validation.total,
    validation_accuracy=validation.accuracy,
)

# Returns the epoch's means over images and its last batch, or :interrupted. A loss that is not finite ends it.
function train_epoch!(model, optimiser, loss, penalties, data, epoch, settings, on_batch, buffers)
    (; seed, batch_size, balance, epochs) = settings
    items = epoch_items(data, seed, epoch, balance)
    factors = class_weights(data, balance)
    K = length(data.classes)
    start_dropout!(model, seed, epoch)
    sums, batches = Sums(), cld(length(items), batch_size)
    ended = each_batch(data, items, batch_size; seed, epoch, buffers) do chosen, x, waited
        labels = [data.labels[item.index] for item in chosen]
        step = train_step!(model, optimiser, loss, penalties, x, targets(labels, K), factors[labels .+ 1], buffers)
        n = length(chosen)
        sums.batch += 1
        sums.images += n
        sums.loss += n * Float64(step.loss)
        sums.penalty += n * Float64(step.penalty)
        sums.hits += dispatch_barrier(count_hits, step.logits, labels)::Int
        isfinite(sums.loss + sums.penalty) || return (; sums.batch, loss=sums.loss + sums.penalty, penalty=NaN, accuracy=NaN)
        so_far = (; epoch, epochs, sums.batch, batches, images=n, waited, loss=(sums.loss + sums.penalty) / sums.images,
            accuracy=sums.hits / sums.images)
        return on_batch(so_far) === true ? :interrupted : nothing
    end
    ended === nothing || return ended
    return (; batch=batches, loss=sums.loss / sums.images, penalty=sums.penalty / sums.images,
        accuracy=sums.hits / sums.images)
end

count_hits(logits, labels) = count(decisions(logits) .== labels)

# Running sums of an epoch; the losses are summed over images.
mutable struct Sums
    batch::Int
    images::Int
    hits::Int
    loss::Float64
    penalty::Float64
    Sums() = new(0, 0, 0, 0.0, 0.0)
end

# Dropout is on whatever mode the layers were left in, and draws from its own generator of this epoch.
function start_dropout!(model, seed, epoch)
    for (number, name) in enumerate(keys(model))
        layer = model[name]
        layer isa Dropout || continue
        layer.active = true
        copy!(layer.rng, derived_rng(seed, "dropout", epoch, number))
    end
end

"""
    train_step!(model, optimiser, loss, penalties, x, y, weights, buffers = Buffers())

Make one step of Adam on the total loss of a batch, in place.

# Arguments
- `model::Chain`, `optimiser`: of `Optimisers.setup` with [`KerasAdam`](@ref).
- `loss`: of [`loss_of`](@ref).
- `penalties`: of [`kernel_penalties`](@ref).
- `x`: `W×H×C×B`, 0 to 255; `y`: `outputs×B`; `weights`: of each image in the loss.
- `buffers`: give the arrays, which the next step uses again.

# Returns
- `NamedTuple`: `loss`, `penalty` and `logits` before the step.
"""
function train_step!(model, optimiser, loss, penalties, x, y, weights, buffers=Buffers())
    if has_fast_path(model, x)
        return written_out_step!(UpdateSink(penalties, optimiser), model, loss, x, y, weights, buffers)
    end
    result, gradient = total_gradient(model, loss, penalties, x, y, weights)
    if isfinite(result.loss + result.penalty)
        Optimisers.update!(optimiser, model, gradient)
        proximal_steps!(model, optimiser, penalties)
    end
    return result
end

# The sink gets no gradient if the loss is not finite.
function written_out_step!(sink, model, loss, x, y, weights, buffers)
    w = reshape(weights, 1, :)
    # The arrays of a step point into the buffers.
    return GC.@preserve buffers on_all_threads() do
        parts = stages(model)
        values = run_forward(parts, x, buffers)
        logits = copy(last(values))::Matrix{Float32}
        value = data_loss(loss, logits, y, w)
        isfinite(value) && run_backward(parts, values, data_loss_gradient(loss, logits, y, w), buffers, sink)
        return (; loss=value, penalty=sink.value[], logits)
    end
end

# The gradient of data loss + penalty: written out for our layers on a CPU, else Zygote's through the layers, the loss's
# and the penalty's written out. Zygote sees no name of this module: on Julia 1.12 the two halves of a pullback that
# refers to one can stop fitting each other when another package invalidates them after precompilation.
function total_gradient(model, loss, penalties, x, y, weights, buffers=Buffers())
    if has_fast_path(model, x)
        sink = GradientSink(penalties)
        result = written_out_step!(sink, model, loss, x, y, weights, buffers)
        return result, as_gradient(sink, model)
    end
    # Our own models never come here, so it is compiled when it is first called and not with the rest.
    return dispatch_barrier(zygote_gradient, model, loss, penalties, x, y, reshape(weights, 1, :))
end

function zygote_gradient(model, loss, penalties, x, y, w)
    logits, back = Zygote.pullback(m -> m(x), model)
    value = data_loss(loss, logits, y, w)
    gradient = only(back(data_loss_gradient(loss, logits, y, w)))
    for (name, p) in penalties
        add_gradient!(gradient.layers[name].weight, p, model[name].weight)
    end
    return (; loss=value, penalty=penalty_value(penalties, model), logits), gradient
end
