# Matrix products of small blocks that are in cache, for dense.jl and winograd.jl.
const ROWS = 4                                # vectors of output rows of a block of sums
const COLUMNS = MANY_REGISTERS ? 4 : 2        # its columns; fewer rows have more

# c[m, n] (+)= Σ a[m, k]·b[k, n] for R vectors of m and C of n; `a` has neighbouring m side by side, b any strides. With each
# k, memory at `ahead` is asked for, which then lies `stride` further.
@generated function product_block!(
    c::Ptr{Float32}, c_n::Int, a::Ptr{Float32}, a_k::Int, b::Ptr{Float32}, b_k::Int, b_n::Int, K::Int, add::Bool,
    ::Val{R}, ::Val{C}, ahead::Ptr{Float32}, stride::Int,
) where {R,C}
    acc(r, n) = Symbol(:acc, r, :_, n)
    place(r, n) = :(at(c, $(n - 1) * c_n + $(LANES * (r - 1))))
    return quote
        $([:($(acc(r, n)) = add ? load_vec($(place(r, n))) : splat(0.0f0)) for r in 1:R for n in 1:C]...)
        for _ in 1:K
            $([:($(Symbol(:a, r)) = load_vec(at(a, $(LANES * (r - 1))))) for r in 1:R]...)
            $([quote
                s = splat(unsafe_load(at(b, $(n - 1) * b_n)))
                $([:($(acc(r, n)) = muladd_vec($(Symbol(:a, r)), s, $(acc(r, n)))) for r in 1:R]...)
            end for n in 1:C]...)
            prefetch(ahead)
            a, b, ahead = at(a, a_k), at(b, b_k), at(ahead, stride)
        end
        $([:(store_vec($(place(r, n)), $(acc(r, n)))) for r in 1:R for n in 1:C]...)
        return nothing
    end
end

# The same for M rows, a multiple of R vectors, and N columns, as many at a time as registers hold. Meanwhile `soon` values
# at `ahead` are asked for.
function product!(c, c_n, a, a_k, b, b_k, b_n, M, N, K, add, ::Val{R}, ahead=a, soon=0) where {R}
    wide = max(2, ROWS * COLUMNS ÷ R)
    strips = M ÷ (R * LANES)
    stride = cld(soon, strips * cld(N, wide) * K)
    for strip in 0:(strips - 1)
        m, from = strip * R * LANES, at(ahead, strip * (soon ÷ strips))
        rest(n, C) = product_columns!(n, at(c, m), c_n, at(a, m), a_k, b, b_k, b_n, N, K, add, Val(R), C, from, stride)
        rest(rest(rest(0, Val(wide)), Val(wide ÷ 2)), Val(1))
    end
end

function product_columns!(n, c, c_n, a, a_k, b, b_k, b_n, N, K, add, ::Val{R}, ::Val{C}, ahead, stride) where {R,C}
    while n + C <= N
        from = at(ahead, n ÷ C * K * stride)
        product_block!(at(c, n * c_n), c_n, a, a_k, at(b, n * b_n), b_k, b_n, K, add, Val(R), Val(C), from, stride)
        n += C
    end
    return n
end

# For M rows, a multiple of one vector.
function product!(c, c_n, a, a_k, b, b_k, b_n, M, N, K, add)
    if M % (4LANES) == 0
        product!(c, c_n, a, a_k, b, b_k, b_n, M, N, K, add, Val(4))
    elseif M % (2LANES) == 0
        product!(c, c_n, a, a_k, b, b_k, b_n, M, N, K, add, Val(2))
    else
        product!(c, c_n, a, a_k, b, b_k, b_n, M, N, K, add, Val(1))
    end
end
