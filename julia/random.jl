# The random numbers of a fit: a generator and the few ways to draw from it, written here because the numbers that Random's `rand!`
# and `shuffle` make of a seed change with the version of Julia.

"""
    SplitMix(state, step = 0x9e3779b97f4a7c15)

A random generator of 64-bit words, the same with every Julia: SplitMix64 of Steele, Lea & Flood (2014), "Fast Splittable
Pseudorandom Number Generators", in the constants of Vigna's `splitmix64.c`.

The `n`-th word depends on `state + n * step` only, so that a long draw is made in vectors. `Random.rand` is not defined for
it, because what it makes of words changes with Julia; only `rand!` of floating point arrays is, which Flux' dropout calls.

# Arguments
- `state::UInt64`
- `step::UInt64`: odd.

# Examples
```jldoctest
julia> using PhotoFlux: SplitMix, next!

julia> string(next!(SplitMix(1234567)))
"6457827717110365317"
```
"""
mutable struct SplitMix <: AbstractRNG
    state::UInt64
    step::UInt64
end

SplitMix(state::Integer) = SplitMix(state, 0x9e3779b97f4a7c15)

Base.copy!(to::SplitMix, from::SplitMix) = (to.state = from.state; to.step = from.step; to)

"""
    derived_rng(seed, purpose, parts...)

Return the random generator of one purpose: its state and step are from the SHA-256 of the seed, the purpose and the parts.

A generator is never carried from one epoch to the next, so that a resumed run draws what an uninterrupted one draws. The
seed enters by its decimal digits, so that none is too large.

# Arguments
- `seed::Integer`: the run's seed.
- `purpose::AbstractString`: what the numbers are for: `"weights"`, `"order"`, `"dropout"`, `"augment"`, …
- `parts::Integer...`: the epoch, the image, … as the purpose needs.

# Returns
- [`SplitMix`](@ref)

# Examples
```jldoctest
julia> using PhotoFlux: derived_rng, next!

julia> next!(derived_rng(1, "order", 2)) == next!(derived_rng(1, "order", 2)) != next!(derived_rng(1, "order", 3))
true
```
"""
function derived_rng(seed::Integer, purpose::AbstractString, parts::Integer...)
    digest = sha256(string(seed, '/', purpose, map(part -> "/$part", parts)...))
    state, step = ltoh.(reinterpret(UInt64, digest))
    return SplitMix(state, odd_step(step))
end

# Steele, Lea & Flood's rule: odd, and with bits that change often enough for neighbouring states to differ in many.
function odd_step(word::UInt64)
    step = word | 1
    return count_ones(step ⊻ (step >> 1)) < 24 ? step ⊻ 0xaaaaaaaaaaaaaaaa : step
end

@inline function mixed(z::UInt64)
    z = (z ⊻ (z >> 30)) * 0xbf58476d1ce4e5b9
    z = (z ⊻ (z >> 27)) * 0x94d049bb133111eb
    return z ⊻ (z >> 31)
end

# The next word.
next!(rng::SplitMix) = mixed(rng.state += rng.step)

# True or false, by a word's highest bit.
coin!(rng::SplitMix) = next!(rng) >> 63 == 1

# A multiple of 2⁻²⁴ in [0, 1), by a word's upper 24 bits, or those of a half.
uniform!(rng::SplitMix) = unit_float((next!(rng) >> 32) % UInt32)
unit_float(half::UInt32) = Float32((half >> 8) % Int32) / 16_777_216.0f0    # 2²⁴

# An integer in 0:(n - 1), each as likely as another (Lemire 2019, "Fast Random Integer Generation in an Interval").
function below!(rng::SplitMix, n::Integer)
    bound = UInt64(n)
    while true
        product = widemul(next!(rng), bound)
        product % UInt64 >= -bound % bound && return (product >> 64) % Int
    end
end

# A copy in random order (Fisher & Yates, in Durstenfeld's form).
function shuffled(rng::SplitMix, items::AbstractVector)
    order = Vector{eltype(items)}(items)
    for i in length(order):-1:2
        j = below!(rng, i) + 1
        order[i], order[j] = order[j], order[i]
    end
    return order
end

# Two numbers a word, the lower half's first; of an odd number of them, the last word's upper half is left.
function Random.rand!(rng::SplitMix, x::Array{Float32})
    (; state, step) = rng
    @inbounds @simd ivdep for i in 1:(length(x) ÷ 2)
        state += step
        word = mixed(state)
        x[2i - 1] = unit_float(word % UInt32)
        x[2i] = unit_float((word >> 32) % UInt32)
    end
    rng.state = state
    isodd(length(x)) && (x[end] = unit_float(next!(rng) % UInt32))
    return x
end

# Other numbers and other arrays: the same draw, converted. By the sampler that Random makes of their type, since packages of
# arrays have methods for the two arguments alone.
function Random.rand!(
    rng::SplitMix, x::AbstractArray{T}, ::Random.SamplerTrivial{Random.CloseOpen01{T}},
) where {T<:AbstractFloat}
    return copyto!(x, rand!(rng, Array{Float32}(undef, size(x))))
end
