"""
    Rescale(scale)

A layer that multiplies its input by a constant, as `keras.layers.Rescaling` does; models take raw pixels, 0 to 255.
"""
struct Rescale
    scale::Float32
end

(layer::Rescale)(x) = x .* layer.scale

"""
    Standardise(mean, deviation)

A layer that subtracts a mean from each channel and divides by a deviation, as `keras.layers.Normalization` does. Both are measured
on the training part at the start of a fit ([`measure!`](@ref)); no step changes them.

# Arguments
- `mean`, `deviation`: vectors, a number a channel.
"""
struct Standardise{T<:AbstractVector}
    mean::T
    deviation::T
end

Flux.@layer Standardise trainable = ()

Standardise(channels::Integer) = Standardise(zeros(Float32, channels), ones(Float32, channels))

(layer::Standardise)(x) = (x .- reshape(layer.mean, 1, 1, :)) ./ reshape(layer.deviation, 1, 1, :)

# Keras divides by no less, so that a channel which is as good as constant is not blown up.
const LEAST_DEVIATION = 1e-7

"""
    measure!(layer, images, chosen)

Set mean and deviation of a [`Standardise`](@ref) layer to those of the chosen features, in Float64; returns the layer.

The deviation is the population's; it is 1 where it is less than 1e-7, as of a constant feature.

# Arguments
- `images`: `1×1×F×N`.
- `chosen`: the features of which images, such as those of the training part.
"""
function measure!(layer::Standardise, images::AbstractArray{<:Real,4}, chosen)
    rows = reshape(images, :, size(images, 4))
    means, squares = zeros(size(rows, 1)), zeros(size(rows, 1))
    for n in chosen, i in eachindex(means)
        @inbounds means[i] += rows[i, n]
    end
    means ./= length(chosen)
    for n in chosen, i in eachindex(means)
        @inbounds squares[i] += abs2(rows[i, n] - means[i])
    end
    layer.mean .= means
    layer.deviation .= map(s -> s < LEAST_DEVIATION ? 1.0 : s, sqrt.(squares ./ length(chosen)))
    return layer
end

"""
    build_model(variant, input, classes; rng)

Return a variant's model: a plain Flux `Chain` of its [`layers`](@ref) by name, from raw pixels, or a backbone's features, to logits.

Glorot-uniform kernels (zero ones where the layer says so) and zero biases, drawn from `rng` in the order of the layers. Convolutions are
cross-correlations with `same` zero padding.

# Arguments
- `variant`, `input`, `classes`: as for [`layers`](@ref); or the list that it returns in place of the three.
- `rng::AbstractRNG`: for the weights. Dropout has a generator of its own, set by [`train`](@ref) each epoch.

# Returns
- `Chain`: takes a `W×H×C×N` array of `Float32`, 0 to 255, or `1×1×F×N` features; returns `outputs×N` logits.

# Throws
- `ArgumentError`: a size or a number of classes that is too small, or an unknown variant.

# Examples
```jldoctest
julia> model = build_model("baseline", (16, 12, 3), 2);

julia> size(model(zeros(Float32, 16, 12, 3, 5)))
(1, 5)

julia> keys(model)
(:rescale, :conv1, :pool, :conv2, :conv3, :flatten, :dense1, :output)
```
"""
build_model(variant, input, classes; kwargs...) = build_model(layers(variant, input, classes); kwargs...)

build_model(list::Vector{Layer}; rng::AbstractRNG=Xoshiro()) =
    Chain(; (layer.name => flux_layer(layer, layer.zeros ? Flux.zeros32 : glorot(rng)) for layer in list)...)

function flux_layer((; kind, shape, weight, relu, rate)::Layer, init)
    σ = relu ? Flux.relu : identity
    kind == "rescaling" && return Rescale(1.0f0 / 255.0f0)
    kind == "standardisation" && return Standardise(last(shape))
    kind == "convolution" && return Convolution(weight[1:2], weight[3] => weight[4], σ; init)
    kind == "max pooling" && return maxpool2
    kind == "dropout" && return Dropout(rate; rng=SplitMix(0))
    kind == "flatten" && return Flux.flatten
    return Dense(weight[2] => weight[1], σ; init)
end

# Flux.glorot_uniform's numbers, made in place: it would hold the photo CNN's large kernel twice.
function glorot(rng)
    return function (dims::Vararg{Int,N}) where {N}
        w, scale = rand!(rng, Array{Float32}(undef, dims)), sqrt(24.0f0 / sum(Flux.nfan(dims...)))
        return w .= (w .- 0.5f0) .* scale
    end
end

has_kernel(layer) = layer isa Union{Convolution,Dense}

# The layer of a penalised kernel in a model, or what a gradient or the state of Adam has in its place: by the name of a layer of the chain,
# or by the fields that lead to it, joined by points.
function kernel_at(tree, name::Symbol)
    text = string(name)
    return occursin('.', text) ? foldl(getproperty, Symbol.(split(text, '.')); init=tree) : tree.layers[name]
end

"""
    penalty_value(penalties, model)

Return the sum of the penalties of a model's kernels, the term that is added to the data loss.
"""
penalty_value(penalties, model::Chain) = sum((p(kernel_at(model, name).weight) for (name, p) in penalties); init=0.0f0)

"""
    inference(model)

Return a chain of the same layers, sharing their weights, without dropout and with the statistics of its norms as they are.

So it is applied as it must be whatever mode the model was left in, and the model is not changed.
"""
function inference(model::Chain)
    model.layers isa NamedTuple || return Chain(map(resting, filter(layer -> !(layer isa Dropout), model.layers)))
    names = filter(name -> !(model[name] isa Dropout), keys(model))
    return Chain(; (name => resting(model[name]) for name in names)...)
end

resting(layer) = layer
resting(::Dropout) = identity
resting(layer::Chain) = Chain(map(resting, layer.layers))
resting(layer::Flux.Parallel) = Flux.Parallel(layer.connection, map(resting, layer.layers))
resting(layer::Flux.SkipConnection) = Flux.SkipConnection(resting(layer.layers), layer.connection)
resting(layer::Flux.BatchNorm) = layer.active === nothing ? layer : with_mode(Flux.BatchNorm, layer)
resting(layer::Flux.InstanceNorm) = layer.active === nothing ? layer : with_mode(Flux.InstanceNorm, layer)
with_mode(type, layer) = type((name === :active ? nothing : getfield(layer, name) for name in fieldnames(type))...)
