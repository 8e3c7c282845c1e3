"""
    KerasAdam(η = 0.001, β = (0.9, 0.999), ϵ = 1e-7)

Adam as Keras computes it, an Optimisers.jl rule.

At step `t`, with the gradient `g`: `m += (1 − β₁)(g − m)`, `v += (1 − β₂)(g² − v)` and
`w −= η·√(1 − β₂ᵗ)/(1 − β₁ᵗ) · m / (√v + ϵ)`; `keras/src/optimizers/adam.py`, the form before section 2.1 of Kingma & Ba
(2015). Optimisers' `Adam` adds `ϵ` to the *corrected* `√v̂`, so no constant `ϵ` makes the two equal.

# Arguments
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
    r₁, r₂ = T.(1 .- rule.beta)
    ϵ = T(rule.epsilon)
    α = step_size(rule, T, t)
    @. m += (dw - m) * r₁
    @. v += (dw * dw - v) * r₂
    return (m, v, t), Optimisers.@lazy(m * α / (sqrt(v) + ϵ))
end

# In the weights' own precision, as Keras does it: 1 − β₂ᵗ loses digits there, and both must lose the same.
function step_size(rule::KerasAdam, ::Type{T}, t) where {T}
    β₁, β₂ = T.(rule.beta)
    return T(rule.eta) * sqrt(1 - β₂^T(t)) / (1 - β₁^T(t))
end

"""
    proximal_steps!(model, optimiser, penalties)

Make the proximal steps of the kernels with a [`Proximal`](@ref) penalty, after the optimiser's step; returns the model.
"""
function proximal_steps!(model, optimiser, penalties)
    for (name, p) in penalties
        p isa Proximal || continue
        w, leaf = kernel_at(model, name).weight, kernel_at(optimiser, name).weight
        _, v, t = leaf.state
        α, ϵ = step_size(leaf.rule, eltype(w), t), eltype(w)(leaf.rule.epsilon)
        w .= shrunk.(Ref(p), w, α, sqrt.(v) .+ ϵ)
    end
    return model
end

# What becomes of a weight's gradient, given in blocks or whole: `StoreGradient` stores it, penalty included; `AdamStep` makes the
# step at once, in one pass over weight, gradient and both moments.
struct StoreGradient{P<:Penalty}
    gradient::Vector{Float32}
    penalty::P
end

struct AdamStep{P<:Penalty}
    m::Vector{Float32}
    v::Vector{Float32}
    α::Float32
    r₁::Float32
    r₂::Float32
    ϵ::Float32
    penalty::P
end

# The step is counted here, once for each weight and step. As in `apply!`, in the weights' own precision.
function AdamStep(leaf::Optimisers.Leaf{KerasAdam}, penalty::Penalty)
    (; rule, state) = leaf
    m, v, t = state
    t += 1
    leaf.state = (m, v, t)
    return AdamStep(vec(m), vec(v), step_size(rule, Float32, t), Float32.(1 .- rule.beta)..., Float32(rule.epsilon), penalty)
end

# Both return the sum of the penalty's terms.
function Kernels.apply_block!(target::StoreGradient, w::Ptr{Float32}, dw::Ptr{Float32}, offset, n)
    (; gradient, penalty) = target
    value = 0.0f0
    GC.@preserve gradient begin
        to = pointer(gradient, offset + 1)
        @simd ivdep for i in 1:n
            weight = unsafe_load(w, i)
            value += term(penalty, weight)
            unsafe_store!(to, unsafe_load(dw, i) + slope(penalty, weight), i)
        end
    end
    return value
end

function Kernels.apply_block!(target::AdamStep, w::Ptr{Float32}, dw::Ptr{Float32}, offset, n)
    (; α, r₁, r₂, ϵ, penalty) = target
    value = 0.0f0
    GC.@preserve target begin
        ms, vs = pointer(target.m, offset + 1), pointer(target.v, offset + 1)
        @simd ivdep for i in 1:n
            weight, m, v = unsafe_load(w, i), unsafe_load(ms, i), unsafe_load(vs, i)
            value += term(penalty, weight)
            g = unsafe_load(dw, i) + slope(penalty, weight)
            m += (g - m) * r₁
            v += (g * g - v) * r₂
            unsafe_store!(ms, m, i)
            unsafe_store!(vs, v, i)
            # sqrt would check for a negative number, and the check keeps the compiler from using vectors.
            root = Base.sqrt_llvm(v) + ϵ
            unsafe_store!(w, shrunk(penalty, weight - m * α / root, α, root), i)
        end
    end
    return value
end

Kernels.upcoming_reads(target::AdamStep, w, offset, n) = (pointer(target.m, offset + 1), pointer(target.v, offset + 1), n)
