# The last blocks of a backbone, which fine-tuning trains, as one layer of a model, and its training step on a CPU.

"""
    Tail(chain, size)

The last layers of a backbone as one layer of a model: from the activations before them to features, `1×1×F×N`.

A step on a CPU has kernels for the layers of [`load_backbone`](@ref); any other array goes through the layers' own.

# Arguments
- `chain::Chain`: blocks, `top` and the mean over all pixels.
- `size::NTuple{3,Int}`: width, height and channels of an activation. They are stored as features are, `1×1×(C·W·H)×N`, the channels of
  a pixel side by side.
"""
struct Tail{C<:Chain}
    chain::C
    size::NTuple{3,Int}
end

Flux.@layer Tail trainable=(chain,)

function (tail::Tail)(x)
    width, height, channels = tail.size
    return tail.chain(permutedims(reshape(x, channels, width, height, :), (2, 3, 1, 4)))
end

# A convolution of a tail in the form of the kernels. `path`: where it stands in the tail; `prior`: which of the tail's outputs is added to
# its own, by number, 0: the tail's input, -1: none.
struct TailConvolution
    path::Vector{Symbol}
    weight::Array{Float32,4}
    bias::Vector{Float32}
    clamp::Bool
    window::Window
    depthwise::Bool
    prior::Int
end

has_kernel(::Tail) = true
has_step_kernel(tail::Tail) = tail_convolutions(tail) !== nothing

# The convolutions of a tail, first to last; nothing where it has other layers.
function tail_convolutions(@nospecialize(tail::Tail))
    found, (width, height, _) = TailConvolution[], tail.size
    names, list = fieldnames(typeof(tail.chain.layers)), fields(tail.chain.layers)
    last(list) isa Flux.GlobalMeanPool || return nothing
    for (name, layer) in zip(names[1:(end - 1)], list[1:(end - 1)])
        residual = layer isa Flux.SkipConnection && layer.connection === +
        inner, entering = residual ? layer.layers : layer, length(found)
        path = [:chain, :layers, name]
        parts = inner isa Chain ? [([path; residual ? [:layers, :layers] : [:layers]; part], inner[part]) for part in keys(inner)] : [(path, inner)]
        for (number, (place, conv)) in enumerate(parts)
            conv isa Union{Relu6Conv,LinearConv} || return nothing
            window = window_of(conv, (width, height))
            window === nothing && return nothing
            depthwise = conv.groups > 1
            suits = depthwise ? conv isa Relu6Conv && size(conv.weight, 3) == 1 && conv.groups == size(conv.weight, 4) : window.kernel == window.stride == 1
            suits && (conv.pad == (0, 0, 0, 0) || depthwise) || return nothing
            prior = residual && number == length(parts) ? entering : -1
            prior >= 0 && conv isa Relu6Conv && return nothing
            push!(found, TailConvolution(place, conv.weight, conv.bias, conv isa Relu6Conv, window, depthwise, prior))
            width, height = out_size(window)
        end
    end
    return isempty(found) ? nothing : found
end

# Flux's (k, k, 1, C), flipped, to C×taps, and back.
taps_of(weight) = permutedims(reshape(reverse(weight; dims=(1, 2)), :, size(weight, 4)))
taps_to!(weight, taps) = copyto!(weight, reverse(reshape(permutedims(taps), size(weight)); dims=(1, 2)))

as_pixels(x) = reshape(x, size(x, 1), :)

# The input of each convolution and the last one's output, channels × pixels × images. They are good until the next call with these
# buffers; a call with the same `x` finds what the one before has written.
function tail_values(convolutions, tail, x, buffers, name)
    width, height, channels = tail.size
    values = Array{Float32,3}[reshape(x, channels, width * height, size(x, 4))]
    for (number, (; bias, window)) in enumerate(convolutions)
        push!(values, buffer(buffers, Symbol(name, number), :y, length(bias), prod(out_size(window)), size(x, 4)))
    end
    return values
end

function forward!(@nospecialize(tail::Tail), x, buffers, name)
    convolutions = tail_convolutions(tail)::Vector{TailConvolution}
    values = tail_values(convolutions, tail, x, buffers, name)
    for (number, (; weight, bias, clamp, window, depthwise, prior)) in enumerate(convolutions)
        from, y = values[number], values[number + 1]
        if depthwise
            depthwise!(y, taps_of(weight), bias, from, window)
        else
            mix_channels!(as_pixels(y), reshape(weight, size(weight)[3:4]), bias, as_pixels(from), clamp)
        end
        prior >= 0 && add!(y, values[prior + 1])
    end
    features = buffer(buffers, name, :y, 1, 1, size(last(values), 1), size(x, 4))
    pixel_means!(reshape(features, :, size(x, 4)), last(values))
    return features
end

function backward!(@nospecialize(tail::Tail), x, features, dy, buffers, name, wanted, sink)
    convolutions = tail_convolutions(tail)::Vector{TailConvolution}
    values = tail_values(convolutions, tail, x, buffers, name)
    gradient_of(number) = buffer(buffers, Symbol(name, number), :dy, size(values[number + 1])...)
    gradient = mean_gradients!(gradient_of(length(convolutions)), reshape(dy, :, size(x, 4)))
    # Gradients of outputs that are added to a later one.
    added = Dict{Int,Array{Float32,3}}()
    for number in length(convolutions):-1:1
        (; path, weight, bias, clamp, window, depthwise, prior) = convolutions[number]
        prior >= 0 && (added[prior] = gradient)
        from, y = values[number], values[number + 1]
        δ, db = buffer(buffers, name, :δ, size(y)...), buffer(buffers, name, :db, length(bias))
        unclamp!(as_pixels(δ), db, as_pixels(y), as_pixels(gradient), clamp)
        dw = buffer(buffers, name, :dw, size(weight)...)
        dx = number > 1 || wanted ? gradient_of(number - 1) : nothing
        if depthwise
            taps = taps_of(weight)
            d_taps = buffer(buffers, name, :taps, size(taps)...)
            depthwise_gradients!(dx, d_taps, taps, from, δ, window)
            taps_to!(dw, d_taps)
        else
            matrix = reshape(weight, size(weight)[3:4])
            mix_gradients!(dx === nothing ? nothing : as_pixels(dx), reshape(dw, size(matrix)), matrix, as_pixels(from), as_pixels(δ))
        end
        emit!(sink, name, [path; :weight], weight, dw)
        emit!(sink, name, [path; :bias], bias, db)
        dx !== nothing && haskey(added, number - 1) && add!(dx, added[number - 1])
        gradient = dx
    end
    return wanted ? reshape(gradient, size(x)) : nothing
end

function add!(y, x)
    foreach_range(length(y)) do range
        @inbounds @simd for i in range
            y[i] += x[i]
        end
    end
    return y
end
