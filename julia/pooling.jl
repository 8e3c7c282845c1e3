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
maxpool2(x::AbstractArray{<:Any,4}) = Flux.maxpool(x, (2, 2))
maxpool2(x::Array{<:AbstractFloat,4}) = first(pooled(x))

function ChainRulesCore.rrule(::typeof(maxpool2), x::Array{T,4}) where {T<:AbstractFloat}
    y, chosen = pooled(x)
    function maxpool2_pullback(Δ)
        return ChainRulesCore.NoTangent(), unpool!(similar(x), ChainRulesCore.unthunk(Δ), chosen)
    end
    return y, maxpool2_pullback
end

pooled(x::Array{T,4}) where {T} = pool!(Array{T}(undef, pooled_size(x)), Array{UInt8}(undef, pooled_size(x)), x)
