# A loss is a function of logits and targets with the keyword `agg`, as those of `Flux.Losses`, here `identity`: `1×B`, of each
# image. Flux has the cross-entropies; its `mse` takes no softmax and would average over classes and images alike.
binary_squared_error(z, y; agg=mean) = agg(abs2.(sigmoid.(z) .- y) ./ 2)
categorical_squared_error(z, y; agg=mean) = agg(sum(abs2.(softmax(z; dims=1) .- y); dims=1) ./ (2 * size(z, 1)))

"""
    loss_of(name, classes)

Return the loss of a variant's `loss` for a number of classes, a function of logits and targets with the keyword `agg`.

- `"cross_entropy"`: `Flux.logitbinarycrossentropy` of one logit, `Flux.logitcrossentropy` of more.
- `"squared_error"`: `0.5·(σ(z) − y)²` of one logit, `0.5·mean((softmax(z) − y)²)` over the classes of more.
"""
loss_of(name::AbstractString, classes::Integer) = LOSS_TABLE[name, outputs(classes) == 1]

# Of values of any type, so that a step is compiled for the loss that it has and for no other.
const LOSS_TABLE = Dict{Tuple{String,Bool},Any}(
    ("cross_entropy", true) => logitbinarycrossentropy,
    ("cross_entropy", false) => logitcrossentropy,
    ("squared_error", true) => binary_squared_error,
    ("squared_error", false) => categorical_squared_error,
)

"""
    data_loss(loss, logits, y, weights)

Return the data loss of a batch: the mean over its images of each image's loss times its weight.

# Arguments
- `loss`: of [`loss_of`](@ref).
- `logits`, `y`: `outputs×B`.
- `weights`: `1×B`, 1 for an unweighted loss.

# Returns
- a number of the logits' type
"""
function data_loss(loss, logits::AbstractMatrix, y::AbstractMatrix, weights::AbstractMatrix)
    return sum(loss(logits, y; agg=identity) .* weights) / size(logits, 2)
end

"""
    data_loss_gradient(loss, logits, y, weights)

Return the gradient of [`data_loss`](@ref) with respect to the logits, `outputs×B`.

With `p` the probabilities: `p − y` for both cross-entropies; `(p − y)·p·(1 − p)` and, with `d = (p − y)/K`,
`p·(d − Σ p·d)` for the squared errors; each times the image's weight, divided by the number of images.
"""
function data_loss_gradient(loss, logits, y, weights)
    return logits_gradient(loss, probabilities(logits), y) .* weights ./ size(logits, 2)
end

logits_gradient(::Union{typeof(logitbinarycrossentropy),typeof(logitcrossentropy)}, p, y) = p .- y
logits_gradient(::typeof(binary_squared_error), p, y) = (p .- y) .* p .* (1 .- p)

function logits_gradient(::typeof(categorical_squared_error), p, y)
    d = (p .- y) ./ size(p, 1)
    return p .* (d .- sum(p .* d; dims=1))
end

"""
    probabilities(logits)

Return the softmax of each column, or for one output the logistic function, the probability of the positive class.
"""
probabilities(z::AbstractMatrix) = size(z, 1) == 1 ? sigmoid.(z) : softmax(z; dims=1)

"""
    decisions(logits)

Return the class of each column, from 0: the largest logit, or for one output 1 where the logit is above 0.
"""
decisions(z::AbstractMatrix) =
    size(z, 1) == 1 ? Int32.(vec(z) .> 0) : Int32[argmax(column) - 1 for column in eachcol(z)]
