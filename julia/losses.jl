"""
    image_losses(loss, logits, y)

Return each image's loss, `1×B`.

- `BinaryCrossEntropy()`: `−y·log σ(z) − (1 − y)·log(1 − σ(z))` of one logit.
- `CategoricalCrossEntropy()`: `−Σ y·log softmax(z)`.
- `BinarySquaredError()`: `0.5·(σ(z) − y)²` of one logit.
- `CategoricalSquaredError()`: `0.5·mean((softmax(z) − y)²)` over the classes.

# Arguments
- `loss`: one of those; chosen by [`loss_of`](@ref).
- `logits`, `y`: `outputs×B`.
"""
function image_losses end

struct BinaryCrossEntropy end
struct CategoricalCrossEntropy end
struct BinarySquaredError end
struct CategoricalSquaredError end

image_losses(::BinaryCrossEntropy, z, y) = (1 .- y) .* z .- logσ.(z)
image_losses(::CategoricalCrossEntropy, z, y) = -sum(y .* logsoftmax(z; dims=1); dims=1)
image_losses(::BinarySquaredError, z, y) = abs2.(sigmoid.(z) .- y) ./ 2
image_losses(::CategoricalSquaredError, z, y) = sum(abs2.(softmax(z; dims=1) .- y); dims=1) ./ (2 * size(z, 1))

"""
    loss_of(name, classes)

Return the loss of a variant's `loss`, `"cross_entropy"` or `"squared_error"`, for a number of classes.
"""
loss_of(name::AbstractString, classes::Integer) = LOSS_TABLE[name, outputs(classes) == 1]

# Of values of any type, so that a step is compiled for the loss that it has and for no other.
const LOSS_TABLE = Dict{Tuple{String,Bool},Any}(
    ("cross_entropy", true) => BinaryCrossEntropy(),
    ("cross_entropy", false) => CategoricalCrossEntropy(),
    ("squared_error", true) => BinarySquaredError(),
    ("squared_error", false) => CategoricalSquaredError(),
)

"""
    data_loss(loss, logits, y, weights)

Return the data loss of a batch: the mean over its images of each image's loss times its weight.

# Arguments
- `loss`, `logits`, `y`: as in [`image_losses`](@ref).
- `weights`: `1×B`, 1 for an unweighted loss.

# Returns
- a number of the logits' type
"""
function data_loss(loss, logits::AbstractMatrix, y::AbstractMatrix, weights::AbstractMatrix)
    return sum(image_losses(loss, logits, y) .* weights) / size(logits, 2)
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

logits_gradient(::BinaryCrossEntropy, p, y) = p .- y
logits_gradient(::CategoricalCrossEntropy, p, y) = p .- y
logits_gradient(::BinarySquaredError, p, y) = (p .- y) .* p .* (1 .- p)

function logits_gradient(::CategoricalSquaredError, p, y)
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
