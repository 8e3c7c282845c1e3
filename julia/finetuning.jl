# Fine-tuning: the last blocks of a backbone are trained on with the head that was fitted to its features. What the blocks before them
# make of the images is computed once; then it is a fit like any other, of a model that begins there.

# A backbone's weights are good already: a tenth of the head's rate moves them little before the head, whose weights fit the
# features as they were, can follow.
const RATE_OF_TUNING = 0.1

"""
    fine_tune(variant, head, backbone, data; unfreeze, epochs, batch_size, learning_rate, seed = 42, balance, …)

Train the last blocks of a backbone and the head on its features, from a head that was fitted with the backbone frozen.

All of it is trained with a tenth of `learning_rate`. Early stopping counts the weights of the start as the best so far: if no epoch lowers
the total validation loss, head and backbone stay as they were. The images are not augmented.

# Arguments
- `variant`: of the architecture `"transfer"`; a name of the table, or a [`Variant`](@ref).
- `head`: as `initial` of [`train`](@ref): a [`Run`](@ref), or the path of a run or a weights file.
- `backbone`: what [`load_backbone`](@ref) takes, one, not several side by side; or a chain that it returned for images of this size, which
  is then trained in place.
- `data`: a [`PreparedDataset`](@ref) of images, or a folder for [`open_dataset`](@ref).
- `unfreeze::Integer`: how many of the last blocks are trained, 1 or more; the last convolution always is.
- `epochs`, `batch_size`, `learning_rate`, `seed`, `balance`, `on_nonfinite`, `checkpoints`, `resume`, `checkpoint_minutes`, `on_batch`, `on_epoch`,
  `on_note`, `stopped`, `callbacks`, `schedule`, `max_time`: as for `train`; `balance` cannot be `"augment"`. Of a fit that is resumed, what the frozen blocks make of the images is computed again.
- `on_images`: called with (images done, images in all) while the frozen blocks are computed; fine-tuning ends there if it returns `true`.
- `scratch::AbstractString`: a folder on a disk, for what the frozen blocks make of the images; it is removed again.

# Returns
- `NamedTuple`: `run`, a [`Run`](@ref) of the head, and `backbone`, a chain as of `load_backbone`.

# Throws
- `ArgumentError`: a value that cannot be used.
- [`DivergedError`](@ref): the loss became NaN or infinite; the model of its run has the tail of the backbone too, with the last good weights.

# Examples
```julia
tuned = fine_tune("transfer", "runs/mine", "efficientnet-lite2", "prepared/"; unfreeze = 2, epochs = 5)
save_backbone("tuned.safetensors", tuned.backbone, "efficientnet-lite2")
```
"""
fine_tune(name::AbstractString, head, backbone, data; kwargs...) = fine_tune(variant(name), head, backbone, data; kwargs...)

fine_tune(v::Variant, head, backbone, folder::AbstractString; kwargs...) = fine_tune(v, head, backbone, open_dataset(folder); kwargs...)

function fine_tune(
    v::Variant,
    head::Union{Run,AbstractString},
    backbone::Union{Chain,AbstractString},
    data::PreparedDataset;
    unfreeze::Integer,
    epochs::Integer=v.epochs,
    batch_size::Integer=v.batch_size,
    learning_rate::Real=v.learning_rate,
    seed::Integer=42,
    balance::AbstractString=v.balance,
    on_nonfinite::AbstractString="stop",
    checkpoints::Union{Nothing,AbstractString}=nothing,
    resume::Bool=false,
    checkpoint_minutes::Real=10,
    on_batch=Returns(false),
    on_epoch=Returns(nothing),
    on_note=log_note,
    stopped=Returns(false),
    callbacks=(),
    schedule="constant",
    max_time::Union{Nothing,Real}=nothing,
    on_images=Returns(false),
    scratch::AbstractString=tempdir(),
)
    settings = checked_settings(data; epochs, batch_size, learning_rate, seed, balance, on_nonfinite, schedule)
    hooks = checked_hooks(callbacks, schedule, max_time)
    kept = Checkpoints(something(checkpoints, ""); resume, minutes=checkpoint_minutes)
    takes_features(v) || throw(ArgumentError("Only a variant on a backbone can be fine-tuned; received \"$(v.name)\"."))
    holds_features(data) && throw(ArgumentError("Fine-tuning needs images, and $(data.name) holds a backbone's features."))
    balance == "augment" && throw(ArgumentError("`balance` cannot be \"augment\" in fine-tuning. Take \"weights\"."))
    chain = backbone isa Chain ? backbone : load_backbone(backbone; image_size=image_shape(data)[1:2])
    :top in keys(chain) || throw(ArgumentError("Only one backbone can be fine-tuned, not several side by side."))
    check_pixels(chain[:scale], data.images)
    blocks = count(name -> startswith(string(name), "block"), keys(chain))
    1 <= unfreeze <= blocks || throw(ArgumentError("`unfreeze` must be 1 to $blocks, the backbone's blocks; received: $unfreeze."))
    run = mktempdir(scratch) do folder
        tune!(chain, v, data, settings, head, Int(unfreeze), kept, UserFunction(on_batch), UserFunction(on_epoch), UserFunction(on_note), UserFunction(on_images), UserFunction(stopped), hooks, folder)
    end
    return (; run, backbone=chain)
end

# Trains the backbone's own arrays in its last blocks, and returns the run of the head.
function tune!(@nospecialize(backbone::Chain), v, data, settings, head, unfreeze, checkpoints, on_batch, on_epoch, on_note, on_images, stopped, hooks, folder)
    K, frozen = length(data.classes), count(name -> startswith(string(name), "block"), keys(backbone)) - unfreeze
    list = layers(v, (1, 1, length(backbone[:top].bias)), K)
    head_model = build_model(list; rng=derived_rng(settings.seed, "weights"))
    seen = Seen(data, seen_before(head))
    run_of(model, history, kept_epoch, ended, origin, notes) = Run(v, model, history, kept_epoch, ended, first(list).shape, data.classes, settings,
        (; data.name, data.fingerprint, data.about...), origin, seen, nothing, notes)
    activations = frozen_activations(backbone, frozen, data, folder, on_images)
    activations === nothing && return run_of(head_model, NamedTuple[], 0, :interrupted, start_from!(head_model, list, head, data), String[])
    trained = Pair{Symbol,Any}[name => backbone[name] for name in keys(backbone)[(3 + frozen):(end - 1)]]
    tail = Tail(Chain(; trained...), activations.size)
    model = Chain(; tail, pairs(head_model.layers)...)
    slow = (; settings..., learning_rate=settings.learning_rate * RATE_OF_TUNING)
    run = dispatch_barrier(fit!, model, list, loss_of(v.loss, K), v, activations.data, slow, head, checkpoints, on_batch, on_epoch, on_note;
        seen, rows=findall(<=(1), data.split), unfreeze, stopped, hooks)::Run
    return run_of(head_model, run.history, run.kept_epoch, run.ended, run.initial, run.notes)
end

const IMAGES_AT_A_TIME = 16

# What the frozen blocks make of the training and validation images: a dataset in a file of the folder, which is mapped, so that it
# takes no memory; with it the size of an image's. Nothing where `on_images` or Ctrl-C ends it.
function frozen_activations(@nospecialize(backbone::Chain), frozen, data, folder, on_images)
    chosen, path = findall(<=(1), data.split), joinpath(folder, "activations")
    # Without the chain's type, so that nothing is compiled for it.
    part, size_ = PreparedPart(backbone, packed_network(backbone)), (0, 0, 0)
    complete = try
        # Not atomic: into a scratch folder.
        open(path, "w") do io
            with_buffers() do buffers
                all(Iterators.partition(eachindex(chosen), IMAGES_AT_A_TIME)) do batch
                    # Interrupts are handled between two batches: one must not strike while threads are started or Python is called.
                    disable_sigint() do
                        y = on_all_threads(() -> activations_of(part, frozen, data.images[:, :, :, chosen[batch]], buffers), part.network !== nothing)
                        size_ = size(y)[[2, 3, 1]]
                        write_array(io, y)
                        on_images(last(batch), length(chosen)) !== true
                    end
                end
            end
        end
    catch err
        is_interrupt(err) || rethrow()
        false
    end
    complete || return nothing
    images = open(io -> Mmap.mmap(io, Array{Float32,4}, (1, 1, prod(size_), length(chosen))), path)
    kept = PreparedDataset(images, data.labels[chosen], data.split[chosen], data.classes, data.name, data.fingerprint, data.about)
    return (; data=kept, size=size_)
end

# C×W×H×N.
function activations_of((; chain, network)::PreparedPart, frozen, x, buffers)
    network === nothing && return Float32.(permutedims(dispatch_barrier(chain[1:(2 + frozen)], x), (3, 1, 2, 4)))
    window, kernel = frozen == 0 ? (network.stem.window, network.stem.kernel) : (network.blocks[frozen].window, network.blocks[frozen].project)
    y = Array{Float32}(undef, kernel.outputs, out_size(window)..., size(x, 4))
    GC.@preserve buffers bottleneck_trunk!(reshape(y, size(y, 1), :, size(x, 4)), network, frozen, x, buffers, :backbone)
    return y
end

"""
    save_backbone(path, backbone, source)

Write a backbone's weights in the format that [`load_backbone`](@ref) and Python read, with the header of the file that it was loaded from
and the fingerprint of these weights.

# Arguments
- `path::AbstractString`: the file; it is written atomically.
- `backbone::Chain`: of `load_backbone`, one, whose weights may have changed.
- `source::AbstractString`: what it was loaded from.

# Returns
- `path`

# Throws
- `ArgumentError`: there is no such source, or it is not a backbone; `SystemError`: the file cannot be written.
"""
function save_backbone(path::AbstractString, @nospecialize(backbone::Chain), source::AbstractString)
    :top in keys(backbone) || throw(ArgumentError("Only one backbone can be written, not several side by side."))
    original = read_backbone(only(backbone_paths(source)))
    pairs = Pair{String,Array{Float32}}[]
    for name in keys(backbone)
        layer = backbone[name]
        inner = layer isa Flux.SkipConnection ? layer.layers : layer
        convs = inner isa Conv ? [(string(name), inner)] : inner isa Chain ? [("$name.$part", inner[part]) for part in keys(inner)] : []
        for (stored, conv) in convs
            push!(pairs, "$stored.kernel" => stored_kernel(conv.weight, conv.groups), "$stored.bias" => Array{Float32}(conv.bias))
        end
    end
    fingerprint = bytes2hex(sha256(reduce(vcat, (reinterpret(UInt8, htol.(vec(last(pair)))) for pair in pairs))))
    return write_arrays(path, pairs; metadata=merge(original.metadata, Dict("fingerprint" => fingerprint)))
end

# The reverse of `backbone_conv`.
function stored_kernel(weight, groups)
    flipped = reverse(Array(weight); dims=(1, 2))
    return to_keras(groups == 1 ? flipped : reshape(flipped, size(flipped, 1), size(flipped, 2), groups, 1), nothing)
end
