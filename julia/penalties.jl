"""
    Penalty

A term added to the loss for a kernel `w`: `p(w)` is its value, [`add_gradient!`](@ref) adds its gradient.

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

(::NoPenalty)(w::AbstractArray{T}) where {T<:AbstractFloat} = zero(T)
add_gradient!(dw, ::NoPenalty, w) = dw

"""
    L1(λ)

The penalty `λ·Σ|w|`, gradient `λ·sign(w)` (0 at 0).

A step along a subgradient all but never makes a weight exactly zero: it oscillates about zero instead.

# Arguments
- `λ::Real`: 0 or more.

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

(p::L1)(w::AbstractArray{T}) where {T<:AbstractFloat} = T(p.λ) * sum(abs, w)

function add_gradient!(dw, p::L1, w::AbstractArray{T}) where {T}
    λ = T(p.λ)
    return dw .+= λ .* sign.(w)
end

"""
    L2(λ)

The penalty `λ·Σw²`, gradient `2λw`.

# Arguments
- `λ::Real`: 0 or more.

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

(p::L2)(w::AbstractArray{T}) where {T<:AbstractFloat} = T(p.λ) * sum(abs2, w)

function add_gradient!(dw, p::L2, w::AbstractArray{T}) where {T}
    twoλ = 2 * T(p.λ)
    return dw .+= twoλ .* w
end

"""
    ElasticNet(λ₁, λ₂)

The penalty `λ₁·Σ|w| + λ₂·Σw²`, gradient `λ₁·sign(w) + 2λ₂w`.

# Arguments
- `λ₁::Real`, `λ₂::Real`: 0 or more.

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

(p::ElasticNet)(w::AbstractArray{T}) where {T<:AbstractFloat} = T(p.λ₁) * sum(abs, w) + T(p.λ₂) * sum(abs2, w)

function add_gradient!(dw, p::ElasticNet, w::AbstractArray{T}) where {T}
    λ₁, twoλ₂ = T(p.λ₁), 2 * T(p.λ₂)
    return dw .+= λ₁ .* sign.(w) .+ twoλ₂ .* w
end

@doc """
    add_gradient!(dw, penalty, w)

Add the penalty's gradient at the kernel `w` to `dw`, in place.

It is written out, because differentiating through the sum costs memory and time.

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
""" add_gradient!

# For the pass that also updates the weight: the penalty's gradient at one weight; what is summed over the weights, and
# what makes the penalty's value of the sum.
@inline slope(::NoPenalty, w::Float32) = 0.0f0
@inline slope(p::L1, w::Float32) = p.λ * sign(w)
@inline slope(p::L2, w::Float32) = 2 * p.λ * w
@inline slope(p::ElasticNet, w::Float32) = p.λ₁ * sign(w) + 2 * p.λ₂ * w

@inline term(::NoPenalty, w::Float32) = 0.0f0
@inline term(::L1, w::Float32) = abs(w)
@inline term(::L2, w::Float32) = w * w
@inline term(p::ElasticNet, w::Float32) = p.λ₁ * abs(w) + p.λ₂ * w * w

scaled(::NoPenalty, sum::Float32) = 0.0f0
scaled(p::Union{L1,L2}, sum::Float32) = p.λ * sum
scaled(::ElasticNet, sum::Float32) = sum

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
    isfinite(λ) && λ >= 0 || throw(ArgumentError("`$name` must be a finite number, 0 or more; received: $λ."))
    return Float32(λ)
end
