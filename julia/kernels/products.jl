# Matrix products of small blocks that are in cache, for dense.jl and winograd.jl.
const ROWS = 4                                # vectors of output rows of a block of sums
const COLUMNS = MANY_REGISTERS ? 4 : 2        # its columns; fewer rows have more

# A matrix in memory: from one row to the next it is `row` Float32, from one column to the next `column`.
struct Block
    start::Ptr{Float32}
    row::Int
    column::Int
end

Block(start, column) = Block(start, 1, column)

@inline address(m::Block, i, j) = at(m.start, i * m.row + j * m.column)
@inline shifted(m::Block, i, j) = Block(address(m, i, j), m.row, m.column)

# Memory that is asked for ahead, `step` further each time.
struct Ahead
    start::Ptr{Float32}
    step::Int
end

# c[m, n] (+)= Σ a[m, k]·b[k, n] for R vectors of m and C of n; `a` and `c` have neighbouring rows side by side.
@generated function product_block!(
    c::Block, a::Block, b::Block, K::Int, add::Bool, ::Val{R}, ::Val{C}, ahead::Ahead,
) where {R,C}
    acc(r, n) = Symbol(:acc, r, :_, n)
    sums(r, n) = :(address(c, $(LANES * (r - 1)), $(n - 1)))
    return quote
        $([:($(acc(r, n)) = add ? load_vec($(sums(r, n))) : zero(FloatVec)) for r in 1:R for n in 1:C]...)
        a_, b_, soon = a.start, b.start, ahead.start
        for _ in 1:K
            $([:($(Symbol(:a, r)) = load_vec(at(a_, $(LANES * (r - 1))))) for r in 1:R]...)
            $([quote
                s = FloatVec(unsafe_load(at(b_, $(n - 1) * b.column)))
                $([:($(acc(r, n)) = muladd($(Symbol(:a, r)), s, $(acc(r, n)))) for r in 1:R]...)
            end for n in 1:C]...)
            prefetch(soon)
            a_, b_, soon = at(a_, a.column), at(b_, b.row), at(soon, ahead.step)
        end
        $([:(store_vec($(sums(r, n)), $(acc(r, n)))) for r in 1:R for n in 1:C]...)
        return nothing
    end
end

# The same for M rows, a multiple of R vectors, and N columns, as many at a time as registers hold. Meanwhile `soon` values
# at `start` are asked for.
function product!(c::Block, a::Block, b::Block, (M, N, K), add, ::Val{R}, (start, soon)=(a.start, 0)) where {R}
    wide = max(2, ROWS * COLUMNS ÷ R)
    strips = M ÷ (R * LANES)
    step = cld(soon, strips * cld(N, wide) * K)
    for strip in 0:(strips - 1)
        m, ahead = strip * R * LANES, Ahead(at(start, strip * (soon ÷ strips)), step)
        rest(n, C) = product_columns!(n, shifted(c, m, 0), shifted(a, m, 0), b, N, K, add, Val(R), C, ahead)
        rest(rest(rest(0, Val(wide)), Val(wide ÷ 2)), Val(1))
    end
end

function product_columns!(n, c, a, b, N, K, add, ::Val{R}, ::Val{C}, ahead) where {R,C}
    while n + C <= N
        soon = Ahead(at(ahead.start, n ÷ C * K * ahead.step), ahead.step)
        product_block!(shifted(c, 0, n), a, shifted(b, 0, n), K, add, Val(R), Val(C), soon)
        n += C
    end
    return n
end

# For M rows, a multiple of one vector.
function product!(c::Block, a::Block, b::Block, (M, N, K), add)
    if M % (4LANES) == 0
        product!(c, a, b, (M, N, K), add, Val(4))
    elseif M % (2LANES) == 0
        product!(c, a, b, (M, N, K), add, Val(2))
    else
        product!(c, a, b, (M, N, K), add, Val(1))
    end
end
