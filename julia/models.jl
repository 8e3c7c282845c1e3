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

Return a variant's model: a plain Flux `Chain` with named layers, from raw pixels to logits.

Glorot-uniform kernels and zero biases, drawn from `rng` in the order of the layers. Convolutions are
cross-correlations with `same` zero padding.

# Arguments
- `variant::Union{AbstractString,Variant}`
- `input::NTuple{3,Int}`: width, height and channels of an image.
- `classes::Int`: 2 or more; 2 means one logit (the log-odds of the second class), more a logit a class.
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
build_model(name::AbstractString, input, classes; kwargs...) = build_model(variant(name), input, classes; kwargs...)

function build_model(v::Variant, input::NTuple{3,Integer}, classes::Integer; rng::AbstractRNG=Xoshiro())
    width, height, channels = input
    if min(width, height) < 2 || channels < 1
        throw(ArgumentError("`input` must be (width ≥ 2, height ≥ 2, channels ≥ 1); received: $input."))
    end
    classes >= 2 || throw(ArgumentError("`classes` must be 2 or more; received: $classes."))
    body, features = if v.architecture == "photo_cnn"
        convolutions(v, channels, rng), (width ÷ 2) * (height ÷ 2) * 64
    elseif v.architecture == "dense"
        (;), width * height * channels
    else
        throw(unknown_name("architecture", v.architecture, ("photo_cnn", "dense")))
    end
    head = dense_layers(v, features, outputs(classes), rng)
    return Chain(; rescale=Rescale(1.0f0 / 255.0f0), body..., flatten=Flux.flatten, head...)
end

"""
    outputs(classes)

Return the number of logits: 1 for two classes, else one a class.
"""
outputs(classes::Integer) = classes == 2 ? 1 : Int(classes)

# Flux.glorot_uniform's numbers, made in place: it would hold the photo CNN's large kernel twice.
function glorot(rng)
    return function (dims::Vararg{Int,N}) where {N}
        w, scale = rand!(rng, Array{Float32}(undef, dims)), sqrt(24.0f0 / sum(Flux.nfan(dims...)))
        return w .= (w .- 0.5f0) .* scale
    end
end

function convolutions(v, channels, rng)
    conv(ch) = Convolution((3, 3), ch, relu; init=glorot(rng))
    return (;
        conv1=conv(channels => 16),
        pool=maxpool2,
        dropout_layer(:pool_dropout, v, "pool")...,
        conv2=conv(16 => 32),
        conv3=conv(32 => 64),
    )
end

function dense_layers(v, features, outputs, rng)
    dense(ch, σ) = Dense(ch, σ; init=glorot(rng))
    layers = (;)
    for (i, units) in enumerate(v.hidden)
        layer = (; Symbol(:dense, i) => dense(features => units, relu))
        layers = (; layers..., layer..., dropout_layer(Symbol(:dense, i, :_dropout), v, "hidden")...)
        features = units
    end
    return (; layers..., output=dense(features => outputs, identity))
end

function dropout_layer(name, v, group)
    rate = get(v.dropout, group, 0.0f0)
    return iszero(rate) ? (;) : (; name => Dropout(rate; rng=SplitMix(0)))
end

"""
    kernels(model)

Return the names of the layers that have a kernel and a bias, first to last.
"""
kernels(model::Chain) = [name for name in keys(model) if has_kernel(model[name])]

has_kernel(layer) = layer isa Union{Convolution,Dense}

"""
    kernel_penalties(variant, model)

Return the penalised kernels: pairs of a layer's name and its [`Penalty`](@ref).
"""
function kernel_penalties(v::Variant, model::Chain)
    # Of one type whatever the penalties, so that what takes them is compiled once.
    pairs = Pair{Symbol,Penalty}[name => get(v.penalty, penalty_group(name), NoPenalty()) for name in kernels(model)]
    return filter(pair -> !(last(pair) isa NoPenalty), pairs)
end

penalty_group(layer::Symbol) =
    startswith(string(layer), "conv") ? "conv" : layer === :output ? "output" : "hidden"

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
