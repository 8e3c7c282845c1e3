"""
    Rescale(scale)

A layer that multiplies its input by a constant, as `keras.layers.Rescaling` does; models take raw pixels, 0 to 255.
"""
struct Rescale
    scale::Float32
end

(layer::Rescale)(x) = x .* layer.scale

"""
    build_model(variant, input, classes; rng)

Return a variant's model: a plain Flux `Chain` of its [`layers`](@ref) by name, from raw pixels to logits.

Glorot-uniform kernels and zero biases, drawn from `rng` in the order of the layers. Convolutions are
cross-correlations with `same` zero padding.

# Arguments
- `variant`, `input`, `classes`: as for [`layers`](@ref); or the list that it returns in place of the three.
- `rng::AbstractRNG`: for the weights. Dropout has a generator of its own, set by [`train`](@ref) each epoch.

# Returns
- `Chain`: takes a `W×H×C×N` array of `Float32`, 0 to 255; returns `outputs×N` logits.

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
    Chain(; (layer.name => flux_layer(layer, glorot(rng)) for layer in list)...)

function flux_layer((; kind, weight, relu, rate)::Layer, init)
    σ = relu ? Flux.relu : identity
    kind == "rescaling" && return Rescale(1.0f0 / 255.0f0)
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

"""
    penalty_value(penalties, model)

Return the sum of the penalties of a model's kernels, the term that is added to the data loss.
"""
penalty_value(penalties, model::Chain) = sum((p(model[name].weight) for (name, p) in penalties); init=0.0f0)

"""
    without_dropout(model)

Return a chain of the same layers, sharing their weights, with the dropout layers left out.

So dropout is off whatever mode the model was left in, and the model is not changed.
"""
function without_dropout(model::Chain)
    names = filter(name -> !(model[name] isa Dropout), keys(model))
    return Chain(; (name => model[name] for name in names)...)
end
