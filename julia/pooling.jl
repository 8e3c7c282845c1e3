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
        dy, dx = ChainRulesCore.unthunk(Δ), zeros(T, size(x))
        planes(y) do plane
            @inbounds for j in axes(y, 2), i in axes(y, 1)
                k = chosen[i, j, plane]
                dx[2i - 1 + (k & 1), 2j - 1 + (k >> 1), plane] = dy[i, j, plane]
            end
        end
        return ChainRulesCore.NoTangent(), dx
    end
    return y, maxpool2_pullback
end

# The largest values, and which element of its window each is: 0 to 3, along the width first, as Keras scans a window.
function pooled(x::Array{T,4}) where {T}
    w, h, c, n = size(x)
    y, chosen = Array{T}(undef, w ÷ 2, h ÷ 2, c, n), Array{UInt8}(undef, w ÷ 2, h ÷ 2, c, n)
    planes(y) do plane
        @inbounds for j in axes(y, 2), i in axes(y, 1)
            best, k = x[2i - 1, 2j - 1, plane], 0x00
            for (candidate, place) in ((x[2i, 2j - 1, plane], 0x01), (x[2i - 1, 2j, plane], 0x02), (x[2i, 2j, plane], 0x03))
                # A NaN is taken too, so that it shows in the loss.
                if candidate > best || isnan(candidate)
                    best, k = candidate, place
                end
            end
            y[i, j, plane], chosen[i, j, plane] = best, k
        end
    end
    return y, chosen
end

# Threads share the planes, a channel of an image each.
function planes(f, y::Array{<:Any,4})
    all = CartesianIndices(axes(y)[3:4])
    Threads.@threads for number in eachindex(all)
        f(all[number])
    end
end
