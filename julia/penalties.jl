"""
    Penalty

A term that is added to the loss for a kernel. `p(w)` is the sum of [`term`](@ref)`(p, w[i])` over its weights, and
[`add_gradient!`](@ref) adds their derivatives.

Keras' convention: a sum, not a mean, and no factor ½ (`keras.regularizers`). Kernels only, never biases.
"""
abstract type Penalty end

"""
    NoPenalty()

The penalty that is always zero.

# Examples
```jldoctest
julia> NoPenalty()(Float32[1, -2])
0.0f0
```
"""
struct NoPenalty <: Penalty end

"""
    L1(λ)

The penalty `λ·Σ|w|`, gradient `λ·sign(w)` (0 at 0).

Steps along a subgradient rarely make a weight exactly zero: it oscillates about zero instead.

# Arguments
- `λ::Real`: 0 or more.

# Throws
- `ArgumentError`: it is negative or not finite.

# Examples
```jldoctest
julia> L1(0.5)(Float32[1, -2])
1.5f0
```
"""
struct L1 <: Penalty
    λ::Float32
    L1(λ::Real) = new(coefficient("λ", λ))
end

"""
    L2(λ)

The penalty `λ·Σw²`, gradient `2λw`.

# Arguments
- `λ::Real`: 0 or more.

# Throws
- `ArgumentError`: it is negative or not finite.

# Examples
```jldoctest
julia> L2(0.5)(Float32[1, -2])
2.5f0
```
"""
struct L2 <: Penalty
    λ::Float32
    L2(λ::Real) = new(coefficient("λ", λ))
end

"""
    ElasticNet(λ₁, λ₂)

The penalty `λ₁·Σ|w| + λ₂·Σw²`, gradient `λ₁·sign(w) + 2λ₂w`.

# Arguments
- `λ₁::Real`, `λ₂::Real`: 0 or more.

# Throws
- `ArgumentError`: one is negative or not finite.

# Examples
```jldoctest
julia> ElasticNet(0.5, 0.5)(Float32[1, -2])
4.0f0
```
"""
struct ElasticNet <: Penalty
    λ₁::Float32
    λ₂::Float32
    ElasticNet(λ₁::Real, λ₂::Real) = new(coefficient("λ₁", λ₁), coefficient("λ₂", λ₂))
end

"""
    Proximal(penalty)

An [`L1`](@ref) or [`ElasticNet`](@ref) whose L1 part is no part of the gradient but a proximal step after the optimiser's.

The step is in Adam's own metric: after the step `t` each weight becomes `sign(w)·max(|w| − αₜ·λ₁/(√v + ϵ), 0)`, with the step size
`αₜ` and the second moment `v` of that step (ProxGen; Yun, Lozano & Yang, 2021). So weights become exactly zero, and stay it
while the loss pulls at them less than `λ₁`.

# Arguments
- `penalty::Union{L1,ElasticNet}`
"""
struct Proximal{P<:Union{L1,ElasticNet}} <: Penalty
    penalty::P
end

# λ₁ and λ₂.
coefficients(::NoPenalty) = (0.0f0, 0.0f0)
coefficients(p::L1) = (p.λ, 0.0f0)
coefficients(p::L2) = (0.0f0, p.λ)
coefficients(p::ElasticNet) = (p.λ₁, p.λ₂)
coefficients(p::Proximal) = coefficients(p.penalty)

"""
    term(penalty, w)

Return the penalty of one weight, a number of its type (but not less than `Float32`).
"""
@inline term(::NoPenalty, w::Real) = zero(w)
@inline term(p::L1, w::Real) = p.λ * abs(w)
@inline term(p::L2, w::Real) = p.λ * w * w
@inline term(p::ElasticNet, w::Real) = p.λ₁ * abs(w) + p.λ₂ * w * w
@inline term(p::Proximal, w::Real) = term(p.penalty, w)

"""
    slope(penalty, w)

Return the derivative of [`term`](@ref) with respect to the weight, of a [`Proximal`](@ref) that of its L2 part.
"""
@inline slope(::NoPenalty, w::Real) = zero(w)
@inline slope(p::L1, w::Real) = p.λ * sign(w)
@inline slope(p::L2, w::Real) = 2 * p.λ * w
@inline slope(p::ElasticNet, w::Real) = p.λ₁ * sign(w) + 2 * p.λ₂ * w
@inline slope(::Proximal{L1}, w::Real) = zero(w)
@inline slope(p::Proximal{ElasticNet}, w::Real) = 2 * p.penalty.λ₂ * w

"""
    shrunk(penalty, w, α, root)

Return what the proximal step makes of a weight: nearer to zero by `α·λ₁/root`, and zero where it was no farther from it. Without a
[`Proximal`](@ref) penalty that is the weight itself.
"""
@inline shrunk(::Penalty, w::Real, α, root) = w

@inline function shrunk(p::Proximal, w::Real, α, root)
    reach = α * first(coefficients(p)) / root
    return w - min(max(w, -reach), reach)
end

(p::Penalty)(w::AbstractArray{<:AbstractFloat}) = sum(x -> term(p, x), w)

"""
    add_gradient!(dw, penalty, w)

Add the penalty's gradient at the kernel `w` to `dw`, in place.

It is not left to automatic differentiation, which would need more memory and time.

# Arguments
- `dw`, `w`: arrays of one shape.
- `penalty::Penalty`

# Returns
- `dw`

# Examples
```jldoctest
julia> PhotoFlux.add_gradient!(zeros(Float32, 2), L2(0.5), Float32[1, -2])
2-element Vector{Float32}:
  1.0
 -2.0
```
"""
add_gradient!(dw, p::Penalty, w) = dw .+= slope.(Ref(p), w)

"""
    penalty(; l1=0, l2=0)

Return the penalty with these coefficients: `NoPenalty`, `L1`, `L2` or `ElasticNet`.
"""
function penalty(; l1::Real=0, l2::Real=0)
    l1, l2 = coefficient("l1", l1), coefficient("l2", l2)
    iszero(l1) && return iszero(l2) ? NoPenalty() : L2(l2)
    return iszero(l2) ? L1(l1) : ElasticNet(l1, l2)
end

function coefficient(name, λ)
    isfinite(Float32(λ)) && λ >= 0 && !(λ isa Bool) ||
        throw(ArgumentError("`$name` must be a finite number, 0 or more; received: $λ."))
    return Float32(λ)
end
