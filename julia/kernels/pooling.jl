# Max-pooling of 2×2 windows, stride 2, and its gradient. An odd last row or column is in no window.

pooled_size(x) = (size(x, 1) ÷ 2, size(x, 2) ÷ 2, size(x, 3), size(x, 4))

# The largest values, and which element of its window each is: 0 to 3, along the width first, as Keras scans a window.
function pool!(y::Array{T,4}, chosen::Array{UInt8,4}, x::Array{T,4}) where {T}
    width, height = size(x)
    GC.@preserve y chosen x foreach_job(size(y, 3) * size(y, 4)) do plane, _
        from = pointer(x, (plane - 1) * width * height + 1)
        place = (plane - 1) * size(y, 1) * size(y, 2) + 1
        pool_plane!(pointer(y, place), pointer(chosen, place), from, width, height ÷ 2, false)
    end
    return y, chosen
end

const NO_ELEMENT = 0x04    # of a window whose gradient is 0

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
            unsafe_store!(chosen, ifelse(relu & !(best > 0), NO_ELEMENT, k), i)
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
    GC.@preserve dx dy chosen foreach_job(size(dx, 3) * size(dx, 4)) do plane, _
        for row in 0:(height - 1)
            to = pointer(dx, ((plane - 1) * height + row) * width + 1)
            place = (plane - 1) * (height ÷ 2) * (width ÷ 2)
            unpool_row!(to, pointer(dy) + place * sizeof(T), pointer(chosen) + place, width, height, row)
        end
    end
    return dx
end

# One row of a plane's gradient, counted from 0, made of the pooled plane's.
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
