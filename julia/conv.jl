# The convolution layer, its gradient for Zygote, and which kernels it uses.

"""
    Convolution(kernel, channels, σ = identity; stride = 1, init)

A layer like Flux's `CrossCor` with `same` zero padding, with kernels of its own for a CPU.

They are used for arrays of `Float32` in the computer's memory, 3×3 kernels, stride 1 and no activation other than `relu`;
NNlib does the rest.

# Arguments
- `kernel::NTuple{2,Int}`: width and height of the kernel.
- `channels::Pair{Int,Int}`: of the input and of the output.
- `σ`: the activation.
- `stride::Int`
- `init`: makes the kernel, of size `(kernel..., channels...)`; the bias is zero.

# Examples
```jldoctest
julia> layer = PhotoFlux.Convolution((3, 3), 1 => 1; init=(size...) -> ones(Float32, size...))
Convolution((3, 3), 1 => 1)  # 10 parameters

julia> layer(ones(Float32, 3, 2, 1, 1))
3×2×1×1 Array{Float32, 4}:
[:, :, 1, 1] =
 4.0  4.0
 6.0  6.0
 4.0  4.0
```
"""
struct Convolution{F,A<:AbstractArray{<:Any,4},B<:AbstractVector}
    σ::F
    weight::A
    bias::B
    stride::NTuple{2,Int}
    pad::NTuple{4,Int}
end

function Convolution(kernel::NTuple{2,Int}, channels::Pair, σ=identity; stride::Int=1, init=Flux.glorot_uniform)
    weight = init(kernel..., first(channels), last(channels))
    # As Flux's SamePad.
    pad = ntuple(i -> isodd(i) ? cld(kernel[cld(i, 2)] - 1, 2) : fld(kernel[cld(i, 2)] - 1, 2), 4)
    return Convolution(σ, weight, fill!(similar(weight, last(channels)), 0), (stride, stride), pad)
end

Flux.@layer Convolution trainable=(weight, bias)

function Base.show(io::IO, layer::Convolution)
    width, height, inputs, outputs = size(layer.weight)
    print(io, "Convolution((", width, ", ", height, "), ", inputs, " => ", outputs)
    layer.σ === identity || print(io, ", ", layer.σ)
    layer.stride == (1, 1) || print(io, ", stride=", first(layer.stride))
    print(io, ")")
end

const Rectifier = Union{typeof(relu),typeof(identity)}
const Rectified = Convolution{<:Rectifier,Array{Float32,4},Vector{Float32}}

# Whether `Kernels` has a convolution for the layer, and for this input.
suits_kernels(layer) = false
suits_kernels(layer::Rectified) = size(layer.weight)[1:2] == (3, 3) && layer.stride == (1, 1)
suits_kernels(layer, x) = x isa Array{Float32,4} && suits_kernels(layer)

dims_of(layer, x) =
    NNlib.DenseConvDims(x, layer.weight; layer.stride, padding=layer.pad, flipkernel=true)

function (layer::Convolution)(x)
    if suits_kernels(layer, x)
        y = Array{Float32}(undef, size(x, 1), size(x, 2), size(layer.weight, 4), size(x, 4))
        return convolve!(y, layer, x, Buffers(), :convolution)
    end
    return layer.σ.(NNlib.conv(x, layer.weight, dims_of(layer, x)) .+ reshape(layer.bias, 1, 1, :, 1))
end

# Of the whole layer, so that Zygote looks into nothing of ours (see `total_gradient`).
function ChainRulesCore.rrule(layer::Convolution{<:Rectifier}, x::AbstractArray{<:Any,4})
    y = layer(x)
    function convolution_pullback(Δ)
        dx, dw, db = similar(x), similar(layer.weight), similar(layer.bias)
        convolution_gradients!(dx, dw, db, layer, x, y, ChainRulesCore.unthunk(Δ), Buffers(), :convolution)
        return ChainRulesCore.Tangent{typeof(layer)}(; weight=dw, bias=db), dx
    end
    return y, convolution_pullback
end

# Writes the output of a layer that `suits_kernels`.
function convolve!(y, layer, x, buffers, name)
    (; weight, bias, σ) = layer
    convolution = suits_winograd(size(x, 1), size(weight, 3), size(weight, 4)) ? winograd! : correlate!
    return convolution(y, x, weight, bias, σ === relu, buffers, name)
end

# Writes the gradients; `dx` is nothing where nobody asks for it.
function convolution_gradients!(dx, dw, db, layer, x, y, dy, buffers, name)
    if suits_kernels(layer, x)
        dy = convert(Array{Float32,4}, dy)
        suited = suits_winograd(size(x, 1), size(x, 3), size(y, 3))
        gradients! = suited ? winograd_gradients! : correlate_gradients!
        gradients!(dx, dw, db, x, layer.weight, y, dy, layer.σ === relu, buffers, name)
    else
        masked = layer.σ === relu ? dy .* (y .> 0) : dy
        NNlib.∇conv_filter!(dw, x, masked, dims_of(layer, x))
        sum!(reshape(db, 1, 1, :, 1), masked)
        dx === nothing || NNlib.∇conv_data!(dx, masked, layer.weight, dims_of(layer, x))
    end
    return nothing
end
