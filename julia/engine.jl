# Entry points for the Python package. They take strings, numbers and addresses of arrays, because converting other types would
# compile code in each new process.

"""
    engine_fit(spec, folder, weights, settings, initial, on_batch, on_epoch, on_note, stopped, on_hook, every_batch)

Fit a variant and write the weights; those of a fit that diverged too.

# Arguments
- `spec::String`, `settings::String`: the [`Variant`](@ref) and the keywords of [`train`](@ref), as JSON.
- `folder::String`: the prepared dataset.
- `weights::String`: the file to write.
- `initial`: as for `train`.
- `on_batch`, `on_epoch`, `on_note`: called with the values after a batch, of `BATCH_FIELDS`, with those of a row of the history, and with a
  note of the run.
- `stopped`: as for `train`.
- `on_hook`, `every_batch::Bool`: what a [`Relay`](@ref) tells, after each batch too; `nothing`: there are no callbacks.

# Returns
- `Tuple{Int,String}`: the kept epoch, and how the fit ended.
"""
function engine_fit(spec::String, folder::String, weights::String, settings::String, initial, on_batch, on_epoch, on_note, stopped, on_hook,
    every_batch::Bool)
    @nospecialize initial on_batch on_epoch on_note stopped on_hook
    batch_done, epoch_done = UserFunction(on_batch), UserFunction(on_epoch)
    save(run) = write_weights(weights, run.model, layers(run); metadata=weights_metadata(run))
    run = try
        dispatch_barrier(train, variant_from_json(spec), open_dataset(folder); settings_from_json(settings)..., initial,
            on_batch=so_far -> batch_done(so_far[BATCH_FIELDS]...), on_epoch=row -> epoch_done(row...), on_note=UserFunction(on_note), stopped=UserFunction(stopped),
            callbacks=relays(on_hook, every_batch))
    catch err
        err isa DivergedError && save(err.run)
        rethrow()
    end
    save(run)
    return run.kept_epoch, string(run.ended)
end

relays(@nospecialize(on_hook), every_batch) = on_hook === nothing ? Relay[] : [Relay(UserFunction(on_hook), every_batch)]

"""
    engine_fine_tune(spec, folder, head, source, settings, unfreeze, weights, backbone, on_batch, on_epoch, on_note, on_images, stopped, on_hook, every_batch)

Fine-tune a backbone and the head on it, and write both; those of a fit that diverged too.

# Arguments
- `spec::String`, `folder::String`, `settings::String`, `on_batch`, `on_epoch`, `on_note`, `on_hook`, `every_batch`: as for [`engine_fit`](@ref); the dataset of the images.
- `head::String`, `source::String`: the weights files of the fitted head and of the backbone.
- `unfreeze::Int`: how many blocks are trained.
- `weights::String`, `backbone::String`: the files to write.
- `on_images`, `stopped`: as for [`fine_tune`](@ref).

# Returns
- `Tuple{Int,String}`: the kept epoch, and how the fit ended.
"""
function engine_fine_tune(spec::String, folder::String, head::String, source::String, settings::String, unfreeze::Int,
    weights::String, backbone::String, on_batch, on_epoch, on_note, on_images, stopped, on_hook, every_batch::Bool)
    @nospecialize on_batch on_epoch on_note on_images stopped on_hook
    batch_done, epoch_done = UserFunction(on_batch), UserFunction(on_epoch)
    data = open_dataset(folder)
    chain = load_backbone(source; image_size=image_shape(data)[1:2])
    function save(run)
        write_weights(weights, run.model, layers(run); metadata=weights_metadata(run))
        save_backbone(backbone, chain, source)
    end
    tuned = try
        dispatch_barrier(fine_tune, variant_from_json(spec), head, chain, data; settings_from_json(settings)..., unfreeze,
            on_batch=so_far -> batch_done(so_far[BATCH_FIELDS]...), on_epoch=row -> epoch_done(row...), on_note=UserFunction(on_note),
            on_images, stopped=UserFunction(stopped), callbacks=relays(on_hook, every_batch), scratch=dirname(weights))
    catch err
        err isa DivergedError && save(err.run)
        rethrow()
    end
    save(tuned.run)
    return tuned.run.kept_epoch, string(tuned.run.ended)
end

"""
    engine_network(path, name, width, height, channels, classes)

Run a Julia file of the user's, and return the network that a function of it makes as data, see [`describe`](@ref), in JSON.

# Arguments
- `path::String`: the file; `name::String`: the function, which is called with (width, height, channels) and how many classes there are, and
  returns a chain from such images to logits.
- `width::Int`, `height::Int`, `channels::Int`, `classes::Int`

# Throws
- `ArgumentError`: the file cannot be run or has no such function, or what it returns is not a network that can be written as data.
"""
function engine_network(path::String, name::String, width::Int, height::Int, channels::Int, classes::Int)
    scope = Module(:network)
    Core.eval(scope, :(using PhotoFlux))
    chain = users_own(path) do
        Base.include(scope, path)
        # Of the file's own: what Julia has by that name is not meant.
        Symbol(name) in Base.invokelatest(names, scope; all=true) || throw(ArgumentError("it has no function `$name`"))
        Base.invokelatest(Core.eval(scope, Symbol(name)), (width, height, channels), classes)
    end
    chain isa Chain || throw(ArgumentError("`$name` of $path must return a Flux.Chain; it returned a $(typeof(chain))."))
    input = (width, height, channels)
    list = layers(dispatch_barrier(network_variant, chain, input)::Variant, input, classes)
    dispatch_barrier(check_network, build_model(list), list)
    return json_text(list.network)
end

# f(), with what a user's file throws in words.
function users_own(f, path)
    try
        return f()
    catch err
        is_interrupt(err) && rethrow()
        cause = err isa LoadError ? err.error : err
        where_ = err isa LoadError ? " line $(err.line)," : ""
        said = cause isa ArgumentError ? cause.msg : first(split(sprint(showerror, cause), '\n'))
        hint = occursin("Package Flux not found", said) ? " Write `using PhotoFlux.Flux` there." : ""
        throw(ArgumentError("$path,$where_ cannot be used: $said.$hint"))
    end
end

"""
    engine_diverged_text(err, names)

Return what is said of a [`DivergedError`](@ref), with the images of its batch by the names of their files, one a line.
"""
engine_diverged_text(err::DivergedError, names::String) = diverged_text(err, split(names, '\n'))

# The numbers of the first images of its batch.
engine_diverged_images(err::DivergedError) = join(first(err.images, IMAGES_SHOWN), ' ')

# The fields of Python's BatchProgress, in its order.
const BATCH_FIELDS = (:epoch, :epochs, :batch, :batches, :images, :loss, :accuracy)

"""
    engine_load(spec, weights, classes, width, height, channels, device = "cpu")

Return the model of a weights file, for [`engine_logits!`](@ref).

# Arguments
- `spec::String`, `weights::String`, `classes::Int`: the variant as JSON, the weights file, how many classes.
- `width::Int`, `height::Int`, `channels::Int`: of its images.
- `device::String`: as for [`open_device`](@ref).
"""
function engine_load(spec::String, weights::String, classes::Int, width::Int, height::Int, channels::Int, device::String="cpu")
    list = layers(variant_from_json(spec), (width, height, channels), classes)
    model = dispatch_barrier(load_model, weights, list)
    return device == "cpu" ? model : dispatch_barrier(on_device, open_device(device), model)
end

# The name of the card that is the device.
engine_device(device::String) = dispatch_barrier(card_name, open_device(device))::String

"""
    engine_logits!(address, model, images, width, height, channels, n, batch_size, threads = 0)

Write the logits of images to an address: `outputs×n` of `Float32`, which are Python's `(n, outputs)`.

# Arguments
- `model::Chain`: of [`engine_load`](@ref).
- `images::Int`, `width::Int`, `height::Int`, `channels::Int`, `n::Int`: the address of `W×H×C×N` of `UInt8`, or of features,
  `1×1×F×N` of `Float32`, where the model takes these, and these sizes.
- `batch_size::Int`: images at a time.
- `threads::Int`: how many compute at most; 0: all.
"""
function engine_logits!(
    address::Int, model, images::Int, width::Int, height::Int, channels::Int, n::Int, batch_size::Int, threads::Int=0,
)
    @nospecialize model
    threads == 0 || return with_thread_team(size=threads) do
        engine_logits!(address, model, images, width, height, channels, n, batch_size)
    end
    dims = (width, height, channels, n)
    z = if first(model.layers) isa Standardise
        dispatch_barrier(logits, model, unsafe_wrap(Array, Ptr{Float32}(images), dims); batch_size)::Matrix{Float32}
    else
        dispatch_barrier(logits, model, unsafe_wrap(Array, Ptr{UInt8}(images), dims); batch_size)::Matrix{Float32}
    end
    copyto!(unsafe_wrap(Array, Ptr{Float32}(address), size(z)), z)
    return nothing
end

"""
    engine_backbone(source, width, height)

Return a backbone for images of this size, for [`engine_features!`](@ref); `source` is as for [`load_backbone`](@ref).
"""
engine_backbone(source::String, width::Int, height::Int) =
    dispatch_barrier(PreparedBackbone, load_backbone(source; image_size=(width, height)))::PreparedBackbone

"""
    engine_features!(address, backbone, images, width, height, channels, n, batch_size)

Write the features of images to an address, as [`engine_logits!`](@ref) writes logits.
"""
function engine_features!(
    address::Int, backbone::PreparedBackbone, images::Int, width::Int, height::Int, channels::Int, n::Int, batch_size::Int,
)
    x = unsafe_wrap(Array, Ptr{UInt8}(images), (width, height, channels, n))
    features = backbone_features(backbone, x; batch_size)
    copyto!(unsafe_wrap(Array, Ptr{Float32}(address), size(features)), features)
    return nothing
end

"""
    engine_activations(backbone, images, width, height, channels, n)

Return the [`backbone_activations`](@ref) of images at an address.
"""
function engine_activations(backbone::PreparedBackbone, images::Int, width::Int, height::Int, channels::Int, n::Int)
    return backbone_activations(backbone, unsafe_wrap(Array, Ptr{UInt8}(images), (width, height, channels, n)))
end

# How many features an image has.
engine_feature_count(backbone::PreparedBackbone) = sum(features_of, backbone.parts)

variant_from_json(text::AbstractString) = dispatch_barrier(Variant, dispatch_barrier(JSON.parse, text))::Variant
settings_from_json(text::AbstractString) = NamedTuple(Symbol(k) => value for (k, value) in dispatch_barrier(JSON.parse, text))

function package_version(name::AbstractString)
    modules = (; Flux, Flux.NNlib, Optimisers, Zygote)
    return string(pkgversion(modules[Symbol(name)]))
end
