# The training loop: epochs, batches, early stopping and checkpoints.

"""
    train(variant, data; epochs, batch_size, learning_rate, seed = 42, balance, initial, on_nonfinite = "stop", schedule = "constant", callbacks, max_time, checkpoints, resume = false, device, …)
    train(chain, data; name = "chain", penalty = NoPenalty(), patience, loss = "cross_entropy", …)

Train a variant's model, or a network of your own, on the training part of a prepared dataset.

Initial weights, batch order, dropout and augmentation are fixed by `seed`. The last, short batch of an epoch is used.
Where the variant stops early, the best epoch's weights are restored, also when the epochs run out first.
Ctrl-C ends the fit after the running batch and returns the run so far.

A variant on a backbone (`"transfer"`, …) is fitted to the features that its backbone makes of the training and validation images,
which are computed once, at the start; the [`Run`](@ref) has the backbone, and takes images. Its penalties are those of the table, or of
`variant("transfer"; l2=0.003)`; Python chooses the L2 coefficient by cross-validation.

A network of your own is a `Chain` of Flux's layers from images, `W×H×C×N` of 0 to 255, to logits, one for two classes, else one a class. It is
copied, and the fit starts from its weights. It goes through PhotoFlux's kernels where all its layers have them, else through NNlib, Zygote and
Optimisers; [`PhotoFlux.describe`](@ref) says which layers there are. The run's `variant` has the network as data: trained by that, it starts
from weights that the seed gives.

# Arguments
- `variant`: a name of the table, or a [`Variant`](@ref).
- `chain::Chain`; `name`, `penalty` (of the kernels of its `Dense` layers and convolutions), `patience`, `loss`: as of a [`Variant`](@ref).
- `data`: a [`PreparedDataset`](@ref), or a folder for [`open_dataset`](@ref); for a variant on a backbone of images, or of features.
- `epochs::Integer`, `batch_size::Integer`, `learning_rate::Real`: the variant's own unless given.
- `seed::Integer`: any integer, of any number of digits.
- `balance::AbstractString`: the variant's own unless given: `"none"`; `"weights"`, each image's loss times N / (K · size of its class); or `"augment"`,
  every smaller class topped up each epoch with augmented copies ([`epoch_items`](@ref)).
- `initial`: a [`Run`](@ref), or the path of a run or a weights file, from whose weights the fit starts; `nothing`: from
  those that the seed gives. Adam's moments start at zero either way.
- `on_nonfinite::AbstractString`: what a loss that is NaN or infinite does: `"stop"`, an error; `"halve"`: the fit goes on from the end of the
  last good epoch with half the learning rate and new moments of Adam, three times at most, and the run's `notes` say so.
- `checkpoints::AbstractString`: a folder for the fit's checkpoints, such as `"runs/mine/checkpoints"`, which `save_run("runs/mine", run)`
  removes; none are written unless it is given. See [`PhotoFlux.Checkpoints`](@ref).
- `resume::Bool`: go on from the newest checkpoint in that folder. The run is the one that a fit gives which was not ended, bit for bit.
- `checkpoint_minutes::Real`: how long after a checkpoint the next is written within an epoch, 0 or more.
- `on_note`: called with each of the run's notes when it is made; they are logged unless it is given.
- `device`: a device of MLDataDevices, such as `gpu_device()` once `CUDA` and `cuDNN` are loaded, or a name for [`open_device`](@ref); the
  CPU unless given. The numbers are those of the CPU but for the rounding of sums, and so is the [`Run`](@ref), whose `settings` say where
  it was trained.
- `tf32::Bool`: whether products may round their factors to 10 bits, on a device that can; otherwise all is Float32.
- `on_batch`: called after every batch with a `NamedTuple` (`epoch`, `epochs`, `batch`, `batches`, `images`, `waited`,
  the seconds for which the batch's images were waited for, and the means of this epoch so far `loss`, `accuracy`); the
  fit ends there if it returns `true`.
- `on_epoch`: called with each row of the history; of a fit that is resumed first with those that there are.
- `stopped`: asked after every batch of a validation; the fit ends there if it returns `true`.
- `callbacks`: a list of values of your own types, which are told of the fit, may end it and change its learning rate; see [`on_batch_end`](@ref).
- `schedule`: what the learning rate is multiplied with before each batch: `"constant"`, `"step"`, `"cosine"` or `"one_cycle"`
  ([`PhotoFlux.schedule_factor`](@ref)); or a function of the share of all batches of all `epochs` that are done, from 0 to below 1. Its name is in the
  run's `settings`; that of a function is `"own"`, and it must be the same one where a fit is resumed.
- `max_time::Real`: seconds after which the fit ends, at the first batch that is over then; of a fit that is resumed with the parts before.

# Returns
- [`Run`](@ref)

# Throws
- `ArgumentError`: a value that cannot be used; checkpoints that are of a fit with other settings, or of an unfinished one that is not to resume.
- `DimensionMismatch`: `initial` has weights of other shapes; both are listed. Or the network does not give the logits that it must.
- [`DivergedError`](@ref): the loss became NaN or infinite.

# Examples
```julia
run = train("l2", "prepared/"; epochs = 5, on_epoch = println)
evaluate(run, "prepared/").accuracy
run = train(variant("transfer"; backbone = "efficientnet-lite0"), "prepared/")
run = train(Chain(PhotoFlux.Rescale(1 / 255), Conv((3, 3), 3 => 8, relu; stride = 2), BatchNorm(8), GlobalMeanPool(), Flux.flatten, Dense(8 => 1)), "prepared/")
```
"""
train(name::AbstractString, data; kwargs...) = train(variant(name), data; kwargs...)

function train(v::Union{Variant,Chain}, folder::AbstractString; seed::Integer=42, kwargs...)
    return train(v, open_dataset(folder; seed); seed, kwargs...)
end

function train(chain::Chain, data::PreparedDataset; name::AbstractString="chain", penalty::Penalty=NoPenalty(), patience=nothing,
    loss::AbstractString="cross_entropy", kwargs...)
    haskey(kwargs, :initial) && throw(ArgumentError("A chain starts from its own weights. Give `initial` with its variant, `network_variant(chain, input)`."))
    return train(network_variant(chain, image_shape(data); name, penalty, patience, loss), data; initial=chain, kwargs...)
end

function train(
    v::Variant,
    data::PreparedDataset;
    epochs::Integer=v.epochs,
    batch_size::Integer=v.batch_size,
    learning_rate::Real=v.learning_rate,
    seed::Integer=42,
    balance::AbstractString=v.balance,
    initial::Union{Nothing,Run,AbstractString,Chain}=nothing,
    on_nonfinite::AbstractString="stop",
    checkpoints::Union{Nothing,AbstractString}=nothing,
    resume::Bool=false,
    checkpoint_minutes::Real=10,
    device::Union{AbstractDevice,AbstractString}=CPUDevice(),
    tf32::Bool=false,
    on_batch=Returns(false),
    on_epoch=Returns(nothing),
    on_note=log_note,
    stopped=Returns(false),
    callbacks=(),
    schedule="constant",
    max_time::Union{Nothing,Real}=nothing,
)
    settings = checked_settings(data; epochs, batch_size, learning_rate, seed, balance, on_nonfinite, schedule)
    check_kind(v, data, balance)
    kept, device = Checkpoints(something(checkpoints, ""); resume, minutes=checkpoint_minutes), open_device(device)
    told = UserFunction(on_batch), UserFunction(on_epoch), UserFunction(on_note)
    hooks = checked_hooks(callbacks, schedule, max_time)
    return fit(v, data, with_device(settings, device, tf32), initial, kept, told..., device, UserFunction(stopped), hooks)
end

log_note(text) = @warn text

# The settings of a fit to this data, in the types that a run has; an error where they cannot be used.
const ON_NONFINITE = ("stop", "halve")

function checked_settings(data; epochs, batch_size, learning_rate, seed, balance, on_nonfinite, schedule="constant")
    require_whole("epochs", 1, epochs)
    require_whole("batch_size", 1, batch_size)
    require_positive("learning_rate", learning_rate)
    balance in BALANCES || throw(unknown_name("balance", balance, BALANCES))
    on_nonfinite in ON_NONFINITE || throw(unknown_name("on_nonfinite", on_nonfinite, ON_NONFINITE))
    for part in (:train, :validation)
        isempty(indices(data, part)) && throw(ArgumentError("The $part part of $(data.name) has no images."))
    end
    return (; epochs=Int(epochs), batch_size=Int(batch_size), learning_rate=Float64(shortest(Float32(learning_rate))),
        seed=typemin(Int) <= seed <= typemax(Int) ? Int(seed) : BigInt(seed), balance=String(balance),
        on_nonfinite=String(on_nonfinite), schedule=schedule_name(schedule))
end

# With where it is trained, unless that is the CPU.
function with_device(settings, device, tf32)
    device isa CPUDevice || return (; settings..., device=device_name(device), tf32)
    tf32 && throw(ArgumentError("`tf32` is of a GPU, and the device is the CPU. Give `device` too."))
    return settings
end

# Refuses a network of a user's own that cannot be fitted to the data.
function check_own(model, list, data, settings)
    check_network(model, list)
    rest = mod(length(epoch_items(data, settings.seed, 1, settings.balance)), settings.batch_size)
    rest == 1 && !isempty(statistics(model)) && throw(ArgumentError("The last batch of an epoch would have one image, and the variance that " *
        "BatchNorm measures needs two. Take another `batch_size` than $(settings.batch_size)."))
    return nothing
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

# The types of model and loss are known in `fit!` only, which is therefore compiled for them.
function fit(v, data, settings, initial, checkpoints, on_batch::UserFunction, on_epoch::UserFunction, on_note::UserFunction, device, stopped, hooks)
    K, seen, input, backbone, rows = length(data.classes), Seen(data, seen_before(initial)), image_shape(data), nothing, 1:length(data)
    if takes_features(v) && !holds_features(data)
        backbone = RunBackbone(v.backbone, input)
        v = variant(v; backbone=backbone.entry["name"])
        rows = findall(<=(1), data.split)
        data = features_dataset(backbone, data, rows)
    end
    list = layers(v, image_shape(data), K)
    model = build_model(list; rng=derived_rng(settings.seed, "weights"))
    list isa NetworkLayers && dispatch_barrier(check_own, model, list, data, settings)
    arguments, keywords = (list, loss_of(v.loss, K), v, data, settings), (; seen, input, backbone, rows=collect(Int, rows), stopped, hooks)
    device isa CPUDevice && return dispatch_barrier(fit!, model, arguments..., initial, checkpoints, on_batch, on_epoch, on_note; keywords...)::Run
    return dispatch_barrier(fit_on, device, model, arguments, initial, checkpoints, on_batch, on_epoch, on_note; keywords...)::Run
end

# What the fit starts from is made in the computer's memory, then moved.
function fit_on(device, model, arguments, initial, rest...; keywords...)
    list, _, _, data, _ = arguments
    started = Started(start_from!(model, list, initial, data))
    run = dispatch_barrier(fit!, on_device(device, model), arguments..., started, rest...; keywords...)
    tidy_up(device)
    return run
end

# `seen`, `input` and `backbone` are those of the run, `rows` the numbers of the data's images in the dataset. With `unfreeze` above 0, blocks
# that are fine-tuned, the weights of the start are the best until an epoch has better ones. `stopped` is asked between two batches of a validation.
function fit!(model, list, loss, v, data, settings, initial, checkpoints, on_batch, on_epoch, on_note;
    seen, input=first(list).shape, backbone=nothing, rows=collect(1:length(data)), unfreeze=0, stopped=UserFunction(Returns(false)), hooks=Hooks())
    origin = start_from!(model, list, initial, data)
    penalties = kernel_penalties(list)
    optimiser = Optimisers.setup(KerasAdam(settings.learning_rate), model)
    state = FitState(model, settings.learning_rate, v.patience)
    buffers = buffers_of(model, data, settings)
    loop = Loop(v, settings, model, state, optimiser, hooks, isempty(hooks.callbacks) ? 0 : batches_of(data, settings))
    description = fit_description(v, settings, data, origin; unfreeze)
    save(; only=false) = write_checkpoint!(checkpoints, state, description, model, optimiser, on_note; only)
    finished(kept_epoch, ended) = Run(v, on_host(model), state.history, kept_epoch, ended, input, data.classes, settings,
        (; data.name, data.fingerprint, data.about...), origin, seen, backbone, state.notes)

    interrupt = UserFunction(() -> stopped() === true && throw(InterruptException()))
    validate() = evaluate_images(model, data, v, :validation, indices(data, :validation), settings.batch_size, interrupt)

    resume!(checkpoints, state, description, model, optimiser, on_note)
    disable_sigint(() -> foreach(on_epoch, state.history))
    try
        disable_sigint(() -> train_begins!(loop, checkpoints.resume))
        if unfreeze > 0 && state.stopping !== nothing && state.stopping.best_weights === nothing
            start = validate()
            disable_sigint(() -> should_stop!(state.stopping, 0, start.total, model))
        end
        while state.ended === nothing
            training = train_epoch!(model, optimiser, loss, penalties, data, state, settings, on_batch, buffers, loop, () -> is_due(checkpoints, model, false) && save())
            if training === :interrupted
                state.ended = :interrupted
                break
            end
            # The epoch's last step can make the weights non-finite too, which only the validation loss shows.
            total = isfinite(training.loss) ? validate() : training
            lost = isfinite(training.loss) ? total.total : training.loss
            # An interrupt is handled before or after all of it, so that the state is that of one moment, and `on_epoch` gets exactly the rows
            # of the history.
            disable_sigint() do
                if isfinite(lost)
                    end_epoch!(state, model, training, total, settings.epochs)
                    on_epoch(last(state.history))
                    epoch_ended!(loop, on_note)
                    is_due(checkpoints, model, true) && save()
                else
                    source, largest = source_of_failure(model, training.batch), largest_weights(model, optimiser)
                    restore_weights!(model, state.good)
                    err = DivergedError(state.epoch, training.batch, lost, state.epoch - 1, finished(state.epoch - 1, :epochs), state.learning_rate,
                        source, batch_images(data, rows, settings, state.epoch, source), largest)
                    settings.on_nonfinite == "halve" && state.halvings < MOST_HALVINGS || throw(err)
                    halve!(state, optimiser, err, on_note)
                    checkpoints.folder == "" || save(; only=true)
                end
                # Otherwise the garbage of some twenty epochs gathers before a collection.
                GC.gc(false)
            end
        end
    catch err
        is_interrupt(err) || rethrow()
        state.ended = :interrupted
    end
    state.ended === :interrupted && checkpoints.folder != "" && disable_sigint(save)
    (; stopping, history) = state
    if stopping !== nothing && stopping.best_weights !== nothing
        restore_weights!(model, stopping.best_weights)
    end
    train_ended!(loop)
    return finished(stopping === nothing || stopping.best_weights === nothing ? length(history) : stopping.best_epoch, state.ended)
end

# Ctrl-C does not take the run of a fit that has ended.
function train_ended!(loop)
    try
        disable_sigint(() -> tell!(loop, on_train_end))
    catch err
        is_interrupt(err) || rethrow()
    end
    return nothing
end

function end_epoch!(state::FitState, model, training, validation, epochs)
    (; epoch) = state
    push!(state.history, history_row(epoch, time() - state.began, training, validation))
    copy_weights!(state.good, model)
    if should_stop!(state.stopping, epoch, validation.total, model) && epoch < epochs
        state.ended = :early_stopping
    elseif epoch == epochs
        state.ended = :epochs
    end
    begin_epoch!(state, epoch + 1)
    return nothing
end

# Also an interrupt that was thrown in a task that was waited for.
is_interrupt(err) = err isa InterruptException || err isa TaskFailedException && is_interrupt(err.task.result)

seen_before(run::Run) = run.seen
seen_before(::Chain) = nothing

# Copies the initial weights into the model, or without any measures what they standardise by; returns the `initial` of the run.
function start_from!(model, list, ::Nothing, data)
    foreach(name -> measure!(model[name], data.images, indices(data, :train)), standardisations(list))
    return nothing
end

# A chain's own weights are no earlier run's.
function start_from!(model, list, chain::Chain, data)
    load_weights!(model, network_arrays(chain), list; source="the weights of the chain")
    return nothing
end

# Of a model that has its initial weights: the `initial` of the run.
struct Started
    origin::Union{Nothing,NamedTuple}
end

start_from!(model, list, started::Started, data) = started.origin

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

# Goes on with the epoch where the state says. Returns the epoch's means over images and its last batch, or :interrupted. A loss that is not
# finite ends it, and a callback may. keep() is called between two batches.
function train_epoch!(model, optimiser, loss, penalties, data, state, settings, on_batch, buffers, loop, keep)
    (; seed, batch_size, balance, epochs) = settings
    (; epoch, sums) = state
    items = epoch_items(data, seed, epoch, balance)
    factors = class_weights(data, balance)
    K = length(data.classes)
    start_dropout!(model, seed, epoch)
    sums.batch == 0 || resume_dropout!(model, state.dropout)
    batches, rest = cld(length(items), batch_size), items[(sums.batch * batch_size + 1):end]
    disable_sigint(() -> epoch_begins!(loop, batches))
    ended = each_batch(data, rest, batch_size; seed, epoch, buffers) do chosen, x, waited
        labels = [data.labels[item.index] for item in chosen]
        follow_schedule!(loop)
        step = train_step!(model, optimiser, loss, penalties, x, targets(labels, K), factors[labels .+ 1], buffers)
        n = length(chosen)
        sums.batch += 1
        sums.images += n
        sums.loss += n * Float64(step.loss)
        sums.penalty += n * Float64(step.penalty)
        sums.hits += dispatch_barrier(count_hits, step.logits, labels)::Int
        state.dropout = dropout_states(model)
        isfinite(sums.loss + sums.penalty) || return (; sums.batch, loss=sums.loss + sums.penalty, penalty=NaN, accuracy=NaN)
        so_far = (; epoch, epochs, sums.batch, batches, images=n, waited, loss=(sums.loss + sums.penalty) / sums.images,
            accuracy=sums.hits / sums.images)
        asked = batch_ended!(loop, so_far)
        on_batch(so_far) === true && return :interrupted
        asked && return :stopped
        sums.batch < batches && keep()
        return nothing
    end
    ended in (nothing, :stopped) || return ended
    return (; sums.batch, loss=sums.loss / sums.images, penalty=sums.penalty / sums.images,
        accuracy=sums.hits / sums.images)
end

batches_of(data, (; seed, balance, batch_size)) = cld(length(epoch_items(data, seed, 1, balance)), batch_size)

count_hits(logits, labels) = count(decisions(logits) .== labels)

# The dropout layers with the numbers by which their generators are derived: of the chain's own layers their places, then those inside layers.
function dropouts(model)
    found, inside = Pair{Int,Dropout}[], Dropout[]
    for (number, layer) in enumerate(model.layers)
        layer isa Dropout ? push!(found, number => layer) : foreach_layer((_, inner) -> inner isa Dropout && push!(inside, inner), layer)
    end
    return append!(found, (length(model.layers) + i => layer for (i, layer) in enumerate(inside)))
end

# Dropout is on whatever mode the layers were left in, and draws from its own generator of this epoch.
function start_dropout!(model, seed, epoch)
    for (number, layer) in dropouts(model)
        layer.active = true
        copy!(layer.rng, derived_rng(seed, "dropout", epoch, number))
    end
end

# How far the generators have come in their epoch.
dropout_states(model) = UInt64[layer.rng.state for (_, layer) in dropouts(model)]

resume_dropout!(model, states) = foreach(((_, layer), word) -> layer.rng.state = word, dropouts(model), states)
