# Vectors of `LANES` Float32, pointers to them, and the transpose of a tile.

# Sums held in registers at a time, of 32 registers or of the 16 that x86 has without AVX-512.
const MANY_REGISTERS = LANES != 8

const FloatVec = Vec{LANES,Float32}
const LANE_NUMBERS = Vec(ntuple(Int32, LANES))
const NULL = Ptr{Float32}(C_NULL)

# Not `max`, which would hide a NaN.
@inline positive(v::FloatVec) = vifelse(v < 0.0f0, zero(FloatVec), v)
# ReLU6, which hides no NaN either.
@inline clamp6(v::FloatVec) = (p = positive(v); vifelse(p > 6.0f0, FloatVec(6.0f0), p))
# `v` where `y` is above 0, else 0.
@inline where_positive(y::FloatVec, v::FloatVec) = vifelse(y > 0.0f0, v, zero(FloatVec))

# Pointers count in bytes; `at` counts in Float32.
@inline at(p::Ptr{Float32}, n::Integer) = p + 4n
@inline load_vec(p::Ptr{Float32}) = vload(FloatVec, p)
@inline store_vec(p::Ptr{Float32}, v::FloatVec) = vstore(v, p)
# The first n lanes only.
@inline store_vec(p::Ptr{Float32}, v::FloatVec, n::Integer) =
    n >= LANES ? store_vec(p, v) : vstore(v, p, LANE_NUMBERS <= n % Int32)

# Asks for the values at p, which are soon needed, into the second-level cache. SIMD.jl has no prefetch. The pointer is passed as
# an integer, and the code is in the form of an LLVM whose pointers have types, which newer ones still read: Julia 1.10, 1.11 and
# 1.12 all take this, and no one form of `ccall`.
@inline prefetch(p::Ptr{Float32}) = Base.llvmcall(("""
    declare void @llvm.prefetch.p0i8(i8*, i32, i32, i32)
    define void @entry(i64 %0) alwaysinline {
        %p = inttoptr i64 %0 to i8*
        call void @llvm.prefetch.p0i8(i8* %p, i32 0, i32 2, i32 1)
        ret void
    }""", "entry"), Cvoid, Tuple{UInt64}, UInt64(UInt(p)))

# For `shufflevector`: groups of `size` lanes in turn from two vectors, the first group of each pair (`second` is 0) or the second.
exchanged_lanes(size, second) =
    ntuple(l -> (l - 1) & size == 0 ? l - 1 + second * size : LANES + l - 1 - (1 - second) * size, LANES)

# to[i, k] = from[k, i] for LANES × LANES values, columns that far apart; where `mask` is given, only what is above 0
# there. Halves, quarters, … of the tile change places.
@generated function transpose_tile!(to::Ptr{Float32}, to_step::Int, from::Ptr{Float32}, from_step::Int, mask::Ptr{Float32})
    v = [Symbol(:v, i) for i in 1:LANES]
    code = [:($(v[i]) = load_vec(at(from, $(i - 1) * from_step))) for i in 1:LANES]
    masked = [:($(v[i]) = where_positive(load_vec(at(mask, $(i - 1) * from_step)), $(v[i]))) for i in 1:LANES]
    push!(code, :(mask == NULL || $(Expr(:block, masked...))))
    size_ = LANES ÷ 2
    while size_ > 0
        first_, second = Val(exchanged_lanes(size_, 0)), Val(exchanged_lanes(size_, 1))
        for i in 0:(LANES - 1)
            i & size_ == 0 || continue
            a, b = v[i + 1], v[i + size_ + 1]
            push!(code, :(($a, $b) = (shufflevector($a, $b, $first_), shufflevector($a, $b, $second))))
        end
        size_ ÷= 2
    end
    return quote
        $(code...)
        $([:(store_vec(at(to, $(i - 1) * to_step), $(v[i]))) for i in 1:LANES]...)
        return nothing
    end
end

# to[i, k] = from[k, i] for the first m of i and n of k; both have columns that far apart.
function transpose_block!(to, to_columns, from, from_columns, m, n)
    tiles_m, tiles_n = m - m % LANES, n - n % LANES
    for k in 0:LANES:(tiles_n - 1), i in 0:LANES:(tiles_m - 1)
        transpose_tile!(at(to, k * to_columns + i), to_columns, at(from, i * from_columns + k), from_columns, NULL)
    end
    for k in 0:(n - 1), i in (k < tiles_n ? tiles_m : 0):(m - 1)
        unsafe_store!(at(to, k * to_columns + i), unsafe_load(at(from, i * from_columns + k)))
    end
end

function sum_lanes(p::Ptr{Float32})
    total = 0.0f0
    @simd for i in 1:LANES
        total += unsafe_load(p, i)
    end
    return total
end

function clear!(p::Ptr{Float32}, n::Integer)
    @simd ivdep for i in 1:n
        unsafe_store!(p, 0.0f0, i)
    end
end

round_up(n::Integer, size::Integer) = cld(n, size) * size
