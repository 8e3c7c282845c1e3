# Convolutions without groups, bias and ReLU6 included, of images whose channels lie side by side: 1×1 kernels, and small ones
# of few inputs. Each is a matrix product y[output, pixel] = Σ w[output, tap]·x[tap, pixel].
const STRIP = 3                              # vectors of output channels of a block of sums
const PIXELS = MANY_REGISTERS ? 8 : 4        # its pixels

# Output channels that are computed together.
struct Strip
    first::Int      # the first of them, from 0
    vectors::Int
    weights::Int    # where their weights begin
end

# The weights in the order in which blocks read them; output channels past the last are 0.
struct PackedPointwise
    weights::Vector{Float32}
    bias::Vector{Float32}
    taps::Int
    outputs::Int
    strips::Vector{Strip}
end

padded_outputs(kernel::PackedPointwise) = length(kernel.bias)

"""
    PackedPointwise(weight, bias, group = typemax(Int))

Pack a matrix `taps×outputs` of weights; the channels of a strip are in one group of so many output channels.
"""
function PackedPointwise(weight::Matrix{Float32}, bias::Vector{Float32}, group::Int=typemax(Int))
    taps, outputs = size(weight)
    padded = round_up(outputs, LANES)
    strips, first = Strip[], 0
    while first < padded
        left = (min(padded, (first ÷ group + 1) * min(group, padded)) - first) ÷ LANES
        # Two strips of two vectors are faster than one of three and one of one.
        vectors = left == STRIP + 1 ? 2 : min(left, STRIP)
        push!(strips, Strip(first, vectors, first * taps))
        first += vectors * LANES
    end
    packed = zeros(Float32, taps * padded)
    for (; first, vectors, weights) in strips, tap in 1:taps, o in 1:min(vectors * LANES, outputs - first)
        packed[weights + (tap - 1) * vectors * LANES + o] = weight[tap, first + o]
    end
    return PackedPointwise(packed, copyto!(zeros(Float32, padded), bias), taps, outputs, strips)
end

# Where a product finds its inputs and puts its outputs: tap k of pixel n is at x + taps[k] + n·column, and the output channels of pixel n
# are at to + places[n] and what follows. What is at prior + places[n] is added, where `prior` is not NULL.
struct Places
    to::Ptr{Float32}
    places::Ptr{Int}
    x::Ptr{Float32}
    column::Int
    taps::Ptr{Int}
    prior::Ptr{Float32}
end

@inline at(p::Ptr{Int}, n::Integer) = p + sizeof(Int) * n
@inline shifted(p::Places, pixel, channel) = Places(
    at(p.to, channel), at(p.places, pixel), at(p.x, pixel * p.column), p.column, p.taps,
    p.prior == NULL ? NULL : at(p.prior, channel))

# R vectors of output channels of C pixels.
@generated function pointwise_block!(
    p::Places, w::Ptr{Float32}, bias::Ptr{Float32}, K::Int, clamp::Bool, ::Val{R}, ::Val{C},
) where {R,C}
    acc(r, n) = Symbol(:acc, r, :_, n)
    return quote
        $([:($(acc(r, n)) = load_vec(at(bias, $(LANES * (r - 1))))) for r in 1:R for n in 1:C]...)
        if p.prior != NULL
            $([quote
                q = at(p.prior, unsafe_load(p.places, $n))
                $([:($(acc(r, n)) += load_vec(at(q, $(LANES * (r - 1))))) for r in 1:R]...)
            end for n in 1:C]...)
        end
        column = p.column
        for k in 1:K
            q = at(p.x, unsafe_load(p.taps, k))
            $([:($(Symbol(:w, r)) = load_vec(at(w, $(LANES * (r - 1))))) for r in 1:R]...)
            $([quote
                s = FloatVec(unsafe_load(at(q, $(n - 1) * column)))
                $([:($(acc(r, n)) = muladd($(Symbol(:w, r)), s, $(acc(r, n)))) for r in 1:R]...)
            end for n in 1:C]...)
            w = at(w, $(R * LANES))
        end
        $([quote
            q = at(p.to, unsafe_load(p.places, $n))
            $([:(store_vec(at(q, $(LANES * (r - 1))), clamp ? clamp6($(acc(r, n))) : $(acc(r, n)))) for r in 1:R]...)
        end for n in 1:C]...)
        return nothing
    end
end

# The output channels of a strip, of so many pixels.
function pointwise!(p::Places, kernel::PackedPointwise, strip::Strip, pixels::Int, clamp::Bool)
    p, w, bias = shifted(p, 0, strip.first), at(pointer(kernel.weights), strip.weights), at(pointer(kernel.bias), strip.first)
    if strip.vectors == 3
        pointwise_pixels!(p, w, bias, pixels, kernel.taps, clamp, Val(3))
    elseif strip.vectors == 2
        pointwise_pixels!(p, w, bias, pixels, kernel.taps, clamp, Val(2))
    else
        pointwise_pixels!(p, w, bias, pixels, kernel.taps, clamp, Val(1))
    end
end

function pointwise_pixels!(p, w, bias, pixels, K, clamp, ::Val{R}) where {R}
    n = 0
    while n + PIXELS <= pixels
        pointwise_block!(shifted(p, n, 0), w, bias, K, clamp, Val(R), Val(PIXELS))
        n += PIXELS
    end
    while n + PIXELS ÷ 2 <= pixels
        pointwise_block!(shifted(p, n, 0), w, bias, K, clamp, Val(R), Val(PIXELS ÷ 2))
        n += PIXELS ÷ 2
    end
    while n < pixels
        pointwise_block!(shifted(p, n, 0), w, bias, K, clamp, Val(R), Val(1))
        n += 1
    end
end
