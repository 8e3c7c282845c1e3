# Depthwise convolutions of 3×3 and 5×5, stride 1 and 2, bias and ReLU6 included, of images whose channels lie side by side and
# that have zeros around them.
const NEIGHBOURS = 4    # neighbouring output pixels of a block of sums: each input is loaded once for all

# The weights of each vector of channels together, tap by tap; channels past the last are 0.
struct PackedDepthwise
    weights::Vector{Float32}
    bias::Vector{Float32}
    kernel::Int
    stride::Int
end

"""
    PackedDepthwise(weight, bias, stride)

Pack the weights `k×k×channels` of a depthwise convolution.
"""
function PackedDepthwise(weight::Array{Float32,3}, bias::Vector{Float32}, stride::Int)
    k, _, channels = size(weight)
    padded = round_up(channels, LANES)
    packed = zeros(Float32, LANES, k * k, padded ÷ LANES)
    for c in 1:channels
        vector, lane = divrem(c - 1, LANES) .+ 1
        packed[lane, :, vector] .= vec(view(weight, :, :, c))
    end
    return PackedDepthwise(vec(packed), copyto!(zeros(Float32, padded), bias), k, stride)
end

has_depthwise_kernel(kernel, stride) = kernel in (3, 5) && stride in (1, 2)

# A row of outputs from K rows of inputs, of some vectors of channels: from one pixel to the next it is `x_pixel` and `y_pixel`,
# from a row to the next `x_row`.
struct DepthwiseRow
    y::Ptr{Float32}
    y_pixel::Int
    x::Ptr{Float32}
    x_pixel::Int
    x_row::Int
    weights::Ptr{Float32}
    bias::Ptr{Float32}
    vectors::Int
end

# T neighbouring outputs from output `first` on.
@generated function depthwise_block!(d::DepthwiseRow, first::Int, ::Val{K}, ::Val{S}, ::Val{T}) where {K,S,T}
    acc(t) = Symbol(:acc, t)
    # Column i of the inputs counts for output t with the weight of its offset there.
    products(i) = [:($(acc(t)) = muladd(x, $(Symbol(:w, i - t * S)), $(acc(t)))) for t in 0:(T - 1) if 0 <= i - t * S < K]
    columns = [quote
        x = load_vec(at(q, $i * d.x_pixel))
        $(products(i)...)
    end for i in 0:((T - 1) * S + K - 1) if !isempty(products(i))]
    return quote
        x_, y_, w = at(d.x, $S * first * d.x_pixel), at(d.y, first * d.y_pixel), d.weights
        for vector in 0:(d.vectors - 1)
            bias = load_vec(at(d.bias, LANES * vector))
            $([:($(acc(t)) = bias) for t in 0:(T - 1)]...)
            q = x_
            for _ in 1:$K
                $([:($(Symbol(:w, i)) = load_vec(at(w, $(LANES * i)))) for i in 0:(K - 1)]...)
                $(columns...)
                q, w = at(q, d.x_row), at(w, $(LANES * K))
            end
            $([:(store_vec(at(y_, $t * d.y_pixel), clamp6($(acc(t))))) for t in 0:(T - 1)]...)
            x_, y_ = at(x_, LANES), at(y_, LANES)
        end
        return nothing
    end
end

function depthwise_row!(d::DepthwiseRow, width, ::Val{K}, ::Val{S}) where {K,S}
    n = 0
    while n + NEIGHBOURS <= width
        depthwise_block!(d, n, Val(K), Val(S), Val(NEIGHBOURS))
        n += NEIGHBOURS
    end
    if n + 1 < width && width >= NEIGHBOURS
        # Some outputs are computed again: that is faster than one by one.
        depthwise_block!(d, width - NEIGHBOURS, Val(K), Val(S), Val(NEIGHBOURS))
    else
        for m in n:(width - 1)
            depthwise_block!(d, m, Val(K), Val(S), Val(1))
        end
    end
end

function depthwise_row!(d::DepthwiseRow, width, kernel, stride)
    if kernel == 3
        stride == 1 ? depthwise_row!(d, width, Val(3), Val(1)) : depthwise_row!(d, width, Val(3), Val(2))
    else
        stride == 1 ? depthwise_row!(d, width, Val(5), Val(1)) : depthwise_row!(d, width, Val(5), Val(2))
    end
end
