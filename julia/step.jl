# A training step written out for the layers that our models have, on a CPU: no Zygote, no array that the step before did
# not leave. Any other chain or array goes through Zygote and Optimisers (adam_step.jl).
has_step_kernel(layer) = false
has_step_kernel(layer::Rectified) = suits_kernels(layer)
has_step_kernel(::Union{Rescale,Standardise{Vector{Float32}},typeof(maxpool2),typeof(Flux.flatten),Dropout{<:Real,Colon}}) = true
has_step_kernel(::Dense{<:Rectifier,Matrix{Float32},Vector{Float32}}) = true

has_step_kernels(model::Chain) = all(has_step_kernel, model.layers)
has_fast_path(model::Chain, x) = x isa Array{Float32,4} && has_step_kernels(model)

# A convolution of few channels and the pooling after it, in one: what is pooled is not stored.
struct PooledConvolution{C<:Convolution{<:Rectifier}}
    convolution::C
end

has_kernel(::PooledConvolution) = true

can_pool(layer) = false
can_pool(layer::Rectified) = suits_kernels(layer) && !whole_vectors(size(layer.weight, 3), size(layer.weight, 4))

"""
    stages(model)

Return the layers of a chain as a step goes through them, with their names: a convolution and the pooling after it may be one.
"""
function stages(model::Chain)
    found = Pair{Symbol,Any}[]
    for name in keys(model)
        layer = model[name]
        if layer === maxpool2 && !isempty(found) && can_pool(last(last(found)))
            before, convolution = pop!(found)
            push!(found, before => PooledConvolution(convolution))
        else
            push!(found, name => layer)
        end
    end
    return found
end

# forward!(layer, x, buffers, name) returns the layer's output; backward!(dx, layer, …) its input's gradient in `dx`, a
# function that makes the array where it is wanted, or nothing.
function forward!(layer::Rescale, x, buffers, name)
    y = buffer(buffers, name, :y, size(x)...)
    foreach_range(length(y)) do range
        @inbounds @simd for i in range
            y[i] = x[i] * layer.scale
        end
    end
    return y
end

function backward!(layer::Rescale, x, y, dy, buffers, name, wanted, sink)
    return wanted ? dy .* layer.scale : nothing
end

function forward!(layer::Standardise, x, buffers, name)
    y, places = buffer(buffers, name, :y, size(x)...), size(x, 1) * size(x, 2)
    channels = length(layer.mean)
    foreach_range(channels * size(x, 4)) do range
        for i in range
            c = mod1(i, channels)
            m, d = layer.mean[c], layer.deviation[c]
            @inbounds @simd for k in ((i - 1) * places + 1):(i * places)
                y[k] = (x[k] - m) / d
            end
        end
    end
    return y
end

function backward!(layer::Standardise, x, y, dy, buffers, name, wanted, sink)
    return wanted ? dy ./ reshape(layer.deviation, 1, 1, :) : nothing
end

function forward!(layer::Convolution, x, buffers, name)
    if suits_kernels(layer, x)
        y = buffer(buffers, name, :y, size(x, 1), size(x, 2), size(layer.weight, 4), size(x, 4))
        return convolve!(y, layer, x, buffers, name)
    end
    return dispatch_barrier(layer, x)
end

function backward!(layer::Convolution, x, y, dy, buffers, name, wanted, sink)
    return emit_gradients!(layer.weight, layer.bias, x, dy, buffers, name, wanted, sink) do dx, dw, db
        convolution_gradients!(dx, dw, db, layer, x, y, dy, buffers, name)
    end
end

# gradients!(dx, dw, db) writes them.
function emit_gradients!(gradients!, weight, bias, x, dy, buffers, name, wanted, sink)
    dw, db = buffer(buffers, name, :dw, size(weight)...), buffer(buffers, name, :db, length(bias))
    dx = wanted ? gradient_buffer(buffers, dy, size(x)) : nothing
    gradients!(dx, dw, db)
    emit!(sink, name, :weight, weight, dw)
    emit!(sink, name, :bias, bias, db)
    return dx
end

function forward!((; convolution)::PooledConvolution, x, buffers, name)
    (; weight, bias, σ) = convolution
    dims = (size(x, 1) ÷ 2, size(x, 2) ÷ 2, size(weight, 4), size(x, 4))
    y, chosen = buffer(buffers, name, :y, dims...), byte_buffer(buffers, name, :chosen, dims...)
    return correlate!(y, x, weight, bias, σ === relu, buffers, name, chosen)
end

function backward!((; convolution)::PooledConvolution, x, y, dy, buffers, name, wanted, sink)
    (; weight, bias, σ) = convolution
    chosen = byte_buffer(buffers, name, :chosen, size(y)...)
    return emit_gradients!(weight, bias, x, dy, buffers, name, wanted, sink) do dx, dw, db
        correlate_gradients!(dx, dw, db, x, weight, y, dy, σ === relu, buffers, name, chosen)
    end
end

function forward!(::typeof(maxpool2), x, buffers, name)
    y = buffer(buffers, name, :y, pooled_size(x)...)
    return first(pool!(y, byte_buffer(buffers, name, :chosen, size(y)...), x))
end

function backward!(::typeof(maxpool2), x, y, dy, buffers, name, wanted, sink)
    wanted || return nothing
    return unpool!(gradient_buffer(buffers, dy, size(x)), dy, byte_buffer(buffers, name, :chosen, size(y)...))
end

forward!(::typeof(Flux.flatten), x, buffers, name) = reshape(x, :, size(x, ndims(x)))
backward!(::typeof(Flux.flatten), x, y, dy, buffers, name, wanted, sink) = wanted ? reshape(dy, size(x)) : nothing

# As NNlib's dropout draws and multiplies, so that one generator drops the same here and there.
function forward!(layer::Dropout, x, buffers, name)
    layer.active === false && return x
    drawn = rand!(layer.rng, buffer(buffers, name, :drawn, size(x)...))
    return drop!(buffer(buffers, name, :y, size(x)...), x, drawn, layer.p)
end

function backward!(layer::Dropout, x, y, dy, buffers, name, wanted, sink)
    wanted || return nothing
    layer.active === false && return dy
    return drop!(gradient_buffer(buffers, dy, size(x)), dy, buffer(buffers, name, :drawn, size(x)...), layer.p)
end

function drop!(y, x, drawn, p)
    rate, factor = Float32(p), Float32(1 / (1 - p))
    foreach_range(length(y)) do range
        @inbounds @simd for i in range
            y[i] = (drawn[i] > rate) * (factor * x[i])
        end
    end
    return y
end

function forward!(layer::Dense, x, buffers, name)
    y = dense_product!(buffer(buffers, name, :y, size(layer.weight, 1), size(x, 2)), layer.weight, x, buffers, name)
    return y .= layer.σ.(y .+ layer.bias)
end

function backward!(layer::Dense, x, y, dy, buffers, name, wanted, sink)
    δ = buffer(buffers, name, :δ, size(dy)...)
    layer.σ === relu ? (δ .= ifelse.(y .> 0, dy, 0.0f0)) : copyto!(δ, dy)
    db = sum!(buffer(buffers, name, :db, size(δ, 1)), δ)
    dx = wanted ? gradient_buffer(buffers, dy, size(x)) : nothing
    emit_blocks!(sink, name, :weight, layer.weight) do target
        dense_gradients!(dx, target, layer.weight, x, δ, buffers, name)
    end
    emit!(sink, name, :bias, layer.bias, db)
    return dx
end

# Where an array is in a layer: its field, or the fields that lead to it.
const Place = Union{Symbol,Vector{Symbol}}
placed(tree, field::Symbol) = getproperty(tree, field)
placed(tree, fields::Vector{Symbol}) = foldl(getproperty, fields; init=tree)

# Where gradients go: into arrays of their own, or into Adam's step. Either adds up the penalty's value.
abstract type Sink end

struct GradientSink <: Sink
    penalties::Dict{Symbol,Penalty}
    value::Base.RefValue{Float32}
    arrays::Dict{Tuple{Symbol,Place},AbstractArray{Float32}}
end

struct UpdateSink{O} <: Sink
    penalties::Dict{Symbol,Penalty}
    value::Base.RefValue{Float32}
    optimiser::O
end

GradientSink(penalties) =
    GradientSink(Dict{Symbol,Penalty}(penalties), Ref(0.0f0), Dict{Tuple{Symbol,Place},AbstractArray{Float32}}())
UpdateSink(penalties, optimiser) = UpdateSink(Dict{Symbol,Penalty}(penalties), Ref(0.0f0), optimiser)

function target(sink::GradientSink, name, field, w, penalty)
    array = sink.arrays[name, field] = similar(w)
    return StoreGradient(vec(array), penalty)
end

target(sink::UpdateSink, name, field, w, penalty) = AdamStep(placed(sink.optimiser.layers[name], field), penalty)

# Gives a weight's gradient to the sink.
emit!(sink::Sink, name, field, w, dw) = emit_blocks!(target -> apply_gradient!(target, w, dw), sink, name, field, w)

# The same for a gradient that is made block by block: apply!(target) gives it to the target and returns what is summed there.
function emit_blocks!(apply!, sink::Sink, name, field, w)
    sink.value[] += apply!(target(sink, name, field, w, penalty_of(sink, name, field)))
    return nothing
end

penalty_of(sink, name, field) = field === :weight ? get(sink.penalties, name, NoPenalty()) : NoPenalty()

# In the form in which Zygote gives the gradient of a chain.
function as_gradient(sink::GradientSink, model::Chain)
    of_layer(name) = fields_gradient(model[name], Symbol[]) do place
        get(sink.arrays, (name, length(place) == 1 ? only(place) : place), nothing)
    end
    names = keys(model)
    return (; layers=NamedTuple{names}(map(name -> has_kernel(model[name]) ? of_layer(name) : nothing, names)))
end

# found(place) returns the gradient of an array. Only chains and what is in them are looked into.
function fields_gradient(found, layer, place)
    return NamedTuple(map(fieldnames(typeof(layer))) do field
        value, inner = getfield(layer, field), [place; field]
        field => value isa Union{Chain,NamedTuple,Flux.SkipConnection,Conv} ? fields_gradient(found, value, inner) : found(inner)
    end)
end

"""
    run_forward(stages, x, buffers)

Return the input of the first of a model's [`stages`](@ref) and the output of each; they are good until the next call with these
buffers.
"""
function run_forward(stages, x, buffers)
    values = Any[x]
    for (name, layer) in stages
        push!(values, forward!(layer, last(values), buffers, name))
    end
    return values
end

"""
    run_backward(stages, values, dz, buffers, sink)

Go back through the stages from `dz`, the gradient of the logits, giving each weight's gradient to `sink`.

No input gradient is made below the first layer that has weights.
"""
function run_backward(stages, values, dz, buffers, sink::Sink)
    first_kernel = findfirst(stage -> has_kernel(last(stage)), stages)
    gradient = dz
    for i in length(stages):-1:first_kernel
        name, layer = stages[i]
        gradient = backward!(layer, values[i], values[i + 1], gradient, buffers, name, i > first_kernel, sink)
    end
    return nothing
end
