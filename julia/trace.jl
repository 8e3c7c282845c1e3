"""
    trace(variant, weights, images, labels, classes; learning_rate, masks = Dict(), device)

Run some steps from given weights on given batches and return every number, so that two engines can be compared.

# Arguments
- `variant::Variant`
- `weights::AbstractString`: a weights file.
- `images::AbstractArray{<:Real,5}`: `W×H×C×B×steps` of `UInt8`, or features, `1×1×F×B×steps` of `Float32`; `labels::AbstractMatrix`: `B×steps`, from 0.
- `classes::Integer`
- `learning_rate::Real`
- `masks::AbstractDict`: for each dropout layer the factors that its input is multiplied by, in Keras' layout reversed,
  `…×B×steps`; a dropout layer without a mask is off.
- `device`: as for [`train`](@ref).

# Returns
- `Vector{Pair{String,Array{Float32}}}`, dimensions reversed: `initial/NAME`, the weights as the model holds them;
  `activation/LAYER`, what each layer but `flatten` gives for the first batch, and `logits`; `loss`, `penalty`, `total`
  of each step; `gradient/NAME` of the first step's total without what is left to a proximal step; `first/NAME`, `moment1/NAME` and `moment2/NAME`, the weights
  and Adam's moments after one step; `final/NAME`, the weights after the last.
"""
function trace(v::Variant, weights::AbstractString, images, labels, classes; learning_rate, masks=Dict(), device=CPUDevice())
    device = open_device(device)
    input = size(images)[1:3]
    list = layers(v, input, classes)
    model = on_device(device, load_model(weights, list))
    no_dropout = inference(model)
    optimiser = Optimisers.setup(KerasAdam(learning_rate), no_dropout)
    penalties = kernel_penalties(list)
    named(prefix, pairs) = ["$prefix/$name" => copy(array) for (name, array) in pairs]
    arrays(tree) = canonical_arrays(name -> (on_host(tree[name].weight), on_host(tree[name].bias)), list)
    weights_of(model) = canonical_weights(on_host(model), list)
    numbers = named("initial", weights_of(model))
    losses, values = Float32[], Float32[]
    for step in axes(images, 5)
        chain = with_masks(model, Dict(name => on_device_array(device, to_layer(selectdim(mask, ndims(mask), step))) for (name, mask) in masks))
        x, y = on_device_array(device, Float32.(view(images, :, :, :, :, step))), targets(labels[:, step], classes)
        result, gradient = total_gradient(chain, loss_of(v.loss, classes), penalties, x, y, ones(Float32, size(x, 4)))
        push!(losses, result.loss)
        push!(values, result.penalty)
        if step == 1
            append!(numbers, activations(chain, x))
            push!(numbers, "logits" => result.logits)
            append!(numbers, named("gradient", arrays(gradient.layers)))
        end
        # Masks have no weights: without them, the gradient has the form of the optimiser's state.
        Optimisers.update!(optimiser, no_dropout, (; layers=gradient.layers[keys(no_dropout)]))
        proximal_steps!(no_dropout, optimiser, penalties)
        if step == 1
            append!(numbers, named("first", weights_of(model)))
            for moment in 1:2
                tree = map(layer -> map(leaf -> leaf.state[moment], layer[(:weight, :bias)]), optimiser.layers[Tuple(kernels(list))])
                append!(numbers, named("moment$moment", arrays(tree)))
            end
        end
    end
    append!(numbers, named("final", weights_of(model)))
    return append!(numbers, ["loss" => losses, "penalty" => values, "total" => losses .+ values])
end

# By the kernels that also make the gradient: a layer's own call may round differently, and so decide a ReLU near 0 differently.
function activations(chain, x)
    buffers, pairs = x isa DeviceArray ? DeviceBuffers(get_device(x)) : Buffers(), Pair{String,Array{Float32}}[]
    GC.@preserve buffers on_all_threads() do
        y = x
        for name in keys(chain)
            y = forward!(chain[name], y, buffers, name)
            # Images (w, h, c, B) are (c, w, h, B) in Keras' layout reversed. Flattening only renames.
            chain[name] === Flux.flatten || push!(pairs, "activation/$name" => ndims(y) == 4 ? permutedims(on_host(y), (3, 1, 2, 4)) : copy(on_host(y)))
        end
    end
    return pairs
end

function with_masks(model, masks)
    layers = Pair{Symbol,Any}[]
    for name in keys(model)
        if model[name] isa Dropout
            haskey(masks, string(name)) || continue
            push!(layers, name => Mask(masks[string(name)]))
        else
            push!(layers, name => model[name])
        end
    end
    return Chain(; layers...)
end

struct Mask{T}
    factors::T
end

(layer::Mask)(x) = x .* layer.factors

has_step_kernel(::Mask) = true
has_device_kernel(::Mask) = true
forward!(layer::Mask, x, buffers, name) = layer(x)
backward!(layer::Mask, x, y, dy, buffers, name, wanted, sink) = wanted ? dy .* layer.factors : nothing

# Of an image, (c, w, h, B) on disk is (w, h, c, B) here; of a vector, both are (units, B).
to_layer(mask) = ndims(mask) == 4 ? permutedims(mask, (2, 3, 1, 4)) : Array(mask)

"""
    stopping_epochs(totals, patience)

Return after which epoch early stopping ends a fit with these total validation losses, and which epoch is the best.
"""
function stopping_epochs(totals, patience::Integer)
    stopping, model = EarlyStopping(Int(patience)), Chain()
    for (epoch, total) in enumerate(totals)
        should_stop!(stopping, epoch, total, model) && return epoch, stopping.best_epoch
    end
    return length(totals), stopping.best_epoch
end

"""
    augmented(images, flip_x, flip_y, angles, zooms)

Return images `W×H×C×N` of `UInt8` as `Float32`, each transformed as its entries of the four vectors say; see
[`Augmentation`](@ref).
"""
function augmented(images::AbstractArray{UInt8,4}, flip_x, flip_y, angles, zooms)
    out = Array{Float32}(undef, size(images))
    for n in axes(images, 4)
        a = Augmentation(flip_x[n], flip_y[n], angles[n], zooms[n])
        augment!(view(out, :, :, :, n), view(images, :, :, :, n), a)
    end
    return out
end

"""
    pixels(folder, chosen)

Return images or features of a prepared dataset as training sees them, `W×H×C×N` of `Float32`; `chosen` counts from 1.
"""
pixels(folder::AbstractString, chosen) = gather(open_dataset(folder), Item.(chosen, 0); seed=0, epoch=1)
