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
function pool!(y::Array{T,4}, chosen::Array{UInt8,4}, x::Array{T,4}) where {T}
    width, height = size(x)
    GC.@preserve y chosen x share(size(y, 3) * size(y, 4)) do plane, _
        from = pointer(x, (plane - 1) * width * height + 1)
        place = (plane - 1) * size(y, 1) * size(y, 2) + 1
        pool_plane!(pointer(y, place), pointer(chosen, place), from, width, height ÷ 2, false)
    end
    return y, chosen
end

const NONE = 0x04

# Of `rows` pairs of rows. After a ReLU nothing is chosen where no element is above 0. Without a branch, so that the compiler
# uses vectors.
function pool_plane!(y::Ptr{T}, chosen::Ptr{UInt8}, x::Ptr{T}, width, rows, relu) where {T}
    across = width ÷ 2
    for _ in 1:rows
        bottom = x + width * sizeof(T)
        @simd ivdep for i in 1:across
            best, k = unsafe_load(x, 2i - 1), 0x00
            best, k = larger(best, k, unsafe_load(x, 2i), 0x01)
            best, k = larger(best, k, unsafe_load(bottom, 2i - 1), 0x02)
            best, k = larger(best, k, unsafe_load(bottom, 2i), 0x03)
            unsafe_store!(y, ifelse(relu & (best <= 0), zero(T), best), i)
            unsafe_store!(chosen, ifelse(relu & !(best > 0), NONE, k), i)
        end
        y, chosen, x = y + across * sizeof(T), chosen + across, x + 2width * sizeof(T)
    end
end

# A NaN is taken too, so that it shows in the loss.
@inline function larger(best, k, candidate, place)
    take = (candidate > best) | (candidate != candidate)
    return ifelse(take, candidate, best), ifelse(take, place, k)
end

function unpool!(dx::Array{T,4}, dy, chosen) where {T}
    width, height = size(dx)
    dy = convert(Array{T,4}, dy)
    GC.@preserve dx dy chosen share(size(dx, 3) * size(dx, 4)) do plane, _
        for row in 0:(height - 1)
            to = pointer(dx, ((plane - 1) * height + row) * width + 1)
            place = (plane - 1) * (height ÷ 2) * (width ÷ 2)
            unpool_row!(to, pointer(dy) + place * sizeof(T), pointer(chosen) + place, width, height, row)
        end
    end
    return dx
end

# One row of a plane's gradient, counted from 0, of the pooled plane's. An odd last row or column is in no window.
function unpool_row!(to::Ptr{T}, dy::Ptr{T}, chosen::Ptr{UInt8}, width, height, row) where {T}
    across = width ÷ 2
    pair, half = divrem(row, 2)
    if pair < height ÷ 2
        dy, chosen, left = dy + pair * across * sizeof(T), chosen + pair * across, 0x02 * (half % UInt8)
        @simd ivdep for i in 1:across
            k, d = unsafe_load(chosen, i), unsafe_load(dy, i)
            unsafe_store!(to, ifelse(k == left, d, zero(T)), 2i - 1)
            unsafe_store!(to, ifelse(k == left + 0x01, d, zero(T)), 2i)
        end
        isodd(width) && unsafe_store!(to, zero(T), width)
    else
        for i in 1:width
            unsafe_store!(to, zero(T), i)
        end
    end
end
