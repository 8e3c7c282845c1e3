"""
    KerasAdam(η = 0.001, β = (0.9, 0.999), ϵ = 1e-7)

Adam as Keras computes it, an Optimisers.jl rule.

At step `t`, with the gradient `g`: `m += (1 − β₁)(g − m)`, `v += (1 − β₂)(g² − v)` and
`w −= η·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√v + ϵ)`; `keras/src/optimizers/adam.py`, the form before section 2.1 of Kingma & Ba
(2015). Optimisers' `Adam` adds `ϵ` to the *corrected* `√v̂`, so no constant `ϵ` makes the two equal.

# Parameters
- `η`: step size.
- `β::Tuple`: decay of the two moments.
- `ϵ`: added to the root of the second moment.

# Examples
```jldoctest
julia> using Optimisers

julia> w = Float32[1]; state = Optimisers.setup(KerasAdam(0.1), w);

julia> state, w = Optimisers.update!(state, w, Float32[4]); w ≈ [0.9]
true
```
"""
struct KerasAdam <: Optimisers.AbstractRule
    eta::Float64
    beta::Tuple{Float64,Float64}
    epsilon::Float64
end

KerasAdam(η::Real=0.001, β::Tuple{Real,Real}=(0.9, 0.999)) = KerasAdam(η, β, 1e-7)

Optimisers.init(::KerasAdam, w::AbstractArray) = (zero(w), zero(w), 0)

function Optimisers.apply!(rule::KerasAdam, (m, v, t), w::AbstractArray{T}, dw) where {T}
    t += 1
    β₁, β₂ = T.(rule.beta)
    r₁, r₂ = T.(1 .- rule.beta)
    ϵ = T(rule.epsilon)
    # In the weights' own precision, as Keras does it: 1 − β₂ᵗ loses digits there, and both must lose the same.
    α = T(rule.eta) * sqrt(1 - β₂^T(t)) / (1 - β₁^T(t))
    @. m += (dw - m) * r₁
    @. v += (dw * dw - v) * r₂
    return (m, v, t), Optimisers.@lazy(m * α / (sqrt(v) + ϵ))
end
