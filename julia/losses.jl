"""
    data_loss(loss, logits, y, weights)

Return the data loss of a batch, the mean over its images of each image's loss times its weight.

- `"cross_entropy"`, one logit: `−y·log σ(z) − (1 − y)·log(1 − σ(z))`; several: `−Σ y·log softmax(z)`.
- `"squared_error"`: `0.5·mean((softmax(z) − y)²)` over the classes; one logit: `0.5·(σ(z) − y)²`.

# Arguments
- `loss::AbstractString`: one of those.
- `logits`, `y`: `outputs×B`.
- `weights`: `1×B`, 1 for an unweighted loss.

# Returns
- a number of the logits' type
"""
function data_loss(loss, logits::AbstractMatrix, y::AbstractMatrix, weights::AbstractMatrix)
    return sum(image_losses(loss, logits, y) .* weights) / size(logits, 2)
end

function image_losses(loss, z, y)
    binary = size(z, 1) == 1
    if loss == "cross_entropy"
        return binary ? (1 .- y) .* z .- logσ.(z) : -sum(y .* logsoftmax(z; dims=1); dims=1)
    end
    p = probabilities(z)
    return sum(abs2, p .- y; dims=1) ./ (2 * size(z, 1))
end

"""
    probabilities(logits)

Return the softmax of each column, or for one output the logistic function, the probability of the positive class.
"""
probabilities(z::AbstractMatrix) = size(z, 1) == 1 ? Flux.sigmoid.(z) : softmax(z; dims=1)

"""
    decisions(logits)

Return the class of each column, from 0: the largest logit, or for one output 1 where the logit is above 0.
"""
decisions(z::AbstractMatrix) =
    size(z, 1) == 1 ? Int32.(vec(z) .> 0) : Int32[argmax(column) - 1 for column in eachcol(z)]
