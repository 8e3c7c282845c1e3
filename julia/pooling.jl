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

pooled_size(x) = (size(x, 1) ÷ 2, size(x, 2) ÷ 2, size(x, 3), size(x, 4))
pooled(x::Array{T,4}) where {T} = pool!(Array{T}(undef, pooled_size(x)), Array{UInt8}(undef, pooled_size(x)), x)

# The largest values, and which element of its window each is: 0 to 3, along the width first, as Keras scans a window.
# Without a branch, so that the compiler uses vectors.
function pool!(y::Array{T,4}, chosen::Array{UInt8,4}, x::Array{T,4}) where {T}
    share(size(y, 3) * size(y, 4)) do plane, _
        p, rows = CartesianIndices(axes(y)[3:4])[plane], axes(y, 1)
        @inbounds for j in axes(y, 2)
            @simd ivdep for i in rows
                best, k = x[2i - 1, 2j - 1, p], 0x00
                best, k = larger(best, k, x[2i, 2j - 1, p], 0x01)
                best, k = larger(best, k, x[2i - 1, 2j, p], 0x02)
                best, k = larger(best, k, x[2i, 2j, p], 0x03)
                y[i, j, p], chosen[i, j, p] = best, k
            end
        end
    end
    return y, chosen
end

# A NaN is taken too, so that it shows in the loss.
@inline function larger(best, k, candidate, place)
    take = (candidate > best) | (candidate != candidate)
    return ifelse(take, candidate, best), ifelse(take, place, k)
end

function unpool!(dx::Array{T,4}, dy, chosen) where {T}
    share(size(dx, 3) * size(dx, 4)) do plane, _
        p = CartesianIndices(axes(dx)[3:4])[plane]
        # An odd last row or column is in no window.
        isodd(size(dx, 1)) && (dx[end, :, p] .= 0)
        isodd(size(dx, 2)) && (dx[:, end, p] .= 0)
        @inbounds for j in axes(dy, 2)
            @simd ivdep for i in axes(dy, 1)
                k, d = chosen[i, j, p], dy[i, j, p]
                dx[2i - 1, 2j - 1, p] = ifelse(k == 0x00, d, zero(T))
                dx[2i, 2j - 1, p] = ifelse(k == 0x01, d, zero(T))
                dx[2i - 1, 2j, p] = ifelse(k == 0x02, d, zero(T))
                dx[2i, 2j, p] = ifelse(k == 0x03, d, zero(T))
            end
        end
    end
    return dx
end
