"""
    maxpool2(x)

Return the largest of each 2×2 window of an image, stride 2; an odd last row or column is left out, as in Keras.

The gradient goes to the first largest element of a window, and to it alone. NNlib's `maxpool` gives it to the first that is
*approximately* the largest (`≈` in `pooling_direct.jl`), which is another element wherever two differ by less than a
relative 3e-4; Keras' gradient and the true one are this one.

# Arguments
- `x`: `W×H×C×N`.

# Returns
- an array `W÷2 × H÷2 × C × N`

# Examples
```jldoctest
julia> using PhotoFlux: maxpool2

julia> maxpool2(reshape(Float32[1, 5, 2, 3, 4, 0], 3, 2, 1, 1))
1×1×1×1 Array{Float32, 4}:
[:, :, 1, 1] =
 5.0
```
"""
maxpool2(x::AbstractArray{<:AbstractFloat,4}) = first(pooled(x))

function ChainRulesCore.rrule(::typeof(maxpool2), x::AbstractArray{<:AbstractFloat,4})
    y, chosen = pooled(x)
    maxpool2_pullback(Δ) = (ChainRulesCore.NoTangent(), unpooled(x, ChainRulesCore.unthunk(Δ), chosen))
    return y, maxpool2_pullback
end

# The output, and which element of its window each is; and the gradient of the input.
pooled(x::Array{T,4}) where {T} = pool!(Array{T}(undef, pooled_size(x)), Array{UInt8}(undef, pooled_size(x)), x)
unpooled(x::AbstractArray{T}, dy, chosen) where {T} = unpool!(Array{T}(undef, size(x)), dy, chosen)

# Of a view and the like; arrays on a device have kernels of their own.
pooled(x::AbstractArray{T,4}) where {T} = pooled(convert(Array{T,4}, x))
