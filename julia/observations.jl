# MLUtils' interface of data: what a prepared dataset gives to its users, and datasets that are made of what has it.

MLUtils.numobs(data::PreparedDataset) = length(data)
MLUtils.getobs(data::PreparedDataset, i::Integer) = (image=data.images[:, :, :, i], label=data.labels[i])
MLUtils.getobs(data::PreparedDataset, chosen::AbstractVector) = (image=data.images[:, :, :, chosen], label=data.labels[chosen])
MLUtils.getobs(data::PreparedDataset) = MLUtils.getobs(data, 1:length(data))

"""
    open_dataset(train, test, classes; name = "own", seed = 42)

Make a prepared dataset in memory of images that anything holds which has `numobs` and `getobs` of MLUtils; a tenth of the training images of each
class becomes the validation part.

A prepared dataset has both functions too: an observation is `(image, label)`, so MLUtils' `DataLoader(data)`, and `obsview(data, indices(data, :train))`,
give batches of it.

# Arguments
- `train`, `test`: observations of two parts, an image and a label: `W×H×C` or `W×H` of `UInt8`, all of one size, and the name of a class or its number,
  from 0.
- `classes`: their names; of two, the second is the positive one.
- `name::AbstractString`, `seed::Integer`: its name, and what chooses the validation part.

# Returns
- [`PreparedDataset`](@ref)

# Throws
- `ArgumentError`: no observations, an image of another type, or a class that is not there; `DimensionMismatch`: images of different sizes.

# Examples
```jldoctest
julia> observations(n) = [(fill(0x10 * UInt8(i), 4, 4), isodd(i) ? "odd" : "even") for i in 1:n];

julia> open_dataset(observations(10), observations(4), ["even", "odd"])
PreparedDataset("own", 14 images 4×4×1, 2 classes, train 8, validation 2, test 4)
```
"""
function open_dataset(train, test, classes::AbstractVector{<:AbstractString}; name::AbstractString="own", seed::Integer=42)
    first_part = collected(train, classes, nothing)
    second_part = collected(test, classes, size(first(first_part))[1:3])
    return dataset_of(first_part, second_part, collect(String, classes); name, seed)
end

# All images, W×H×C×N, and labels of observations, which are given one by one.
function collected(observations, classes, expected)
    n = MLUtils.numobs(observations)
    n >= 1 || throw(ArgumentError("There are no observations. Give images for training and for testing."))
    labels, images = Vector{Int32}(undef, n), nothing
    for i in 1:n
        image, label = MLUtils.getobs(observations, i)
        image isa AbstractArray{UInt8} && ndims(image) in (2, 3) ||
            throw(ArgumentError("Observation $i has an image of the type $(typeof(image)); expected W×H×C or W×H of UInt8, 0 to 255."))
        shape = (size(image)..., 1)[1:3]
        expected = something(expected, shape)
        shape == expected || throw(DimensionMismatch("Observation $i has an image of $(join(shape, '×')); the others have $(join(expected, '×')). Resize them."))
        images = images === nothing ? Array{UInt8}(undef, shape..., n) : images
        images[:, :, :, i] = image
        labels[i] = class_number(label, classes, i)
    end
    return images::Array{UInt8,4}, labels
end

class_number(label::Integer, classes, i) = label in eachindex(classes) .- 1 ? Int32(label) :
    throw(ArgumentError("Observation $i has the class $label; expected 0 to $(length(classes) - 1)."))

function class_number(label, classes, i)
    number = findfirst(==(label), classes)
    number === nothing && throw(ArgumentError("Observation $i has the class $(repr(label)); expected one of $(join(classes, ", ")), or its number from 0."))
    return Int32(number - 1)
end
