module PhotoFluxMLDatasetsExt

using MLDatasets: MLDatasets
using PhotoFlux: PhotoFlux

"""
    open_dataset(train::MLDatasets.CIFAR10, test::MLDatasets.CIFAR10; seed = 42)

Make a prepared dataset of what `MLDatasets.CIFAR10(:train)` and `MLDatasets.CIFAR10(:test)` return.
"""
function PhotoFlux.open_dataset(train::MLDatasets.CIFAR10, test::MLDatasets.CIFAR10; seed::Integer=42)
    return PhotoFlux.dataset_of(arrays(train), arrays(test), train.metadata["class_names"]; name="cifar10", seed)
end

# MLDatasets keeps the file's order, width first, and scales pixels to 0 … 1 unless asked for an integer `Tx`.
function arrays(data)
    pixels(x::AbstractArray{<:Integer}) = convert(Array{UInt8}, x)
    pixels(x::AbstractArray{<:Real}) = round.(UInt8, 255 .* x)
    return pixels(data.features), Vector{Int32}(data.targets)
end

end
