# PhotoFluxClassifier: a fit and its run as MLJ's interface has them.
module PhotoFluxMLJExt

using ColorTypes: AbstractGray, AbstractRGB, Colorant, blue, gray, green, red
using MLJModelInterface: MLJModelInterface as MMI
using PhotoFlux: PhotoFlux, Flux, Run, Variant
using PhotoFlux.Flux.MLUtils: mapobs

const Chosen = Union{AbstractString,Variant,Flux.Chain}

MMI.@mlj_model mutable struct PhotoFluxClassifier <: MMI.Probabilistic
    variant::Chosen = "l2"
    seed::Integer = 42
    l1::Union{Nothing,Real} = nothing
    l2::Union{Nothing,Real} = nothing
    loss::Union{Nothing,AbstractString} = nothing
    epochs::Union{Nothing,Integer} = nothing
    batch_size::Union{Nothing,Integer} = nothing
    learning_rate::Union{Nothing,Real} = nothing
    balance::Union{Nothing,AbstractString} = nothing
    schedule::Any = "constant"
    callbacks::Any = ()
    max_time::Union{Nothing,Real} = nothing
    device::Any = "cpu"
end

PhotoFlux.mlj_classifier(::Val{:mlj}; keywords...) = PhotoFluxClassifier(; keywords...)

# Those of the fields that are not the variant's own.
given(model, names) = (; (name => getfield(model, name) for name in names if getfield(model, name) !== nothing)...)

const OF_THE_VARIANT = (:l1, :l2, :loss)
const OF_THE_FIT = (:epochs, :batch_size, :learning_rate, :balance, :max_time, :seed, :schedule, :callbacks, :device)

function chosen(model)
    changes = given(model, OF_THE_VARIANT)
    model.variant isa Flux.Chain || return PhotoFlux.variant(model.variant; changes...)
    isempty(changes) || throw(ArgumentError("`$(first(keys(changes)))` is of a variant, and the model's `variant` is a Chain. Give its `network_variant`."))
    return model.variant
end

function MMI.fit(model::PhotoFluxClassifier, verbosity::Integer, X, y)
    codes = Int.(MMI.int(y))
    present = sort!(unique(codes))
    length(present) >= 2 || throw(ArgumentError("There are images of $(length(present)) class; expected two or more."))
    # In the order of the levels; of two, the second is the positive one. A level without images is no class of the fit.
    classes = MMI.classes(first(y))[present]
    images, labels = PhotoFlux.collected(observations(X, indexin(codes, present) .- 1), string.(classes), nothing)
    none = similar(images, size(images)[1:3]..., 0), similar(labels, 0)
    data = PhotoFlux.dataset_of((images, labels), none, string.(classes); name="mlj", model.seed)
    run = PhotoFlux.train(chosen(model), data; given(model, OF_THE_FIT)..., on_epoch=row -> told(verbosity, row), on_note=text -> verbosity > 0 && @warn text)
    run.ended === :interrupted && throw(InterruptException())
    return (; run, classes), nothing, (; run.history, run.kept_epoch, run.ended, run.notes)
end

told(verbosity, row) = verbosity > 1 && @info "Epoch $(row.epoch): loss $(row.train_loss), validation loss $(row.validation_loss)"

function MMI.predict(model::PhotoFluxClassifier, (; run, classes), X)
    images, _ = PhotoFlux.collected(observations(X, zeros(Int, length(X))), run.classes, run.input)
    return MMI.UnivariateFinite(classes, permutedims(PhotoFlux.predict(run, images; model.device)))
end

MMI.fitted_params(::PhotoFluxClassifier, (; run)) = (; run)
MMI.training_losses(::PhotoFluxClassifier, report) = [row.train_total for row in report.history]

# An image and the number of its class, from 0.
function observations(X, numbers)
    length(X) == length(numbers) || throw(DimensionMismatch("There are $(length(X)) images, but $(length(numbers)) classes."))
    return mapobs(i -> (pixels(X[i]), numbers[i]), 1:length(X))
end

# W×H×C of UInt8: JuliaImages has an image's rows first, and values from 0 to 1.
pixels(image) = image
pixels(image::AbstractMatrix{<:AbstractGray}) = bytes(image, gray)
pixels(image::AbstractMatrix{<:AbstractRGB}) = bytes(image, red, green, blue)
pixels(image::AbstractMatrix{<:Colorant}) = throw(ArgumentError("An image has colours of the type $(eltype(image)); expected Gray or RGB. Convert it: `RGB.(image)`."))

function bytes(image, channels...)
    columns = permutedims(image)
    return stack(map(channel -> byte.(channel.(columns)), channels))
end

function byte(value)
    0 <= value <= 1 || throw(ArgumentError("An image has a value of $(Float32(value)); colours are from 0 to 1."))
    return round(UInt8, 255 * Float64(value))
end

MMI.metadata_pkg(PhotoFluxClassifier; package_name="PhotoFlux", package_uuid="7f7d33f0-5f0a-4a5c-9a56-1c0d6f8f2b9e",
    package_url="https://github.com/photoflux/photoflux", is_pure_julia=true, package_license="MIT", is_wrapper=false)
MMI.metadata_model(PhotoFluxClassifier; input_scitype=Union{AbstractVector{<:MMI.Image},AbstractVector{<:AbstractArray{MMI.Count}}},
    target_scitype=AbstractVector{<:MMI.Finite}, supports_training_losses=true, human_name="PhotoFlux image classifier", load_path="PhotoFlux.PhotoFluxClassifier")
# What a user calls; the type is the extension's.
MMI.constructor(::Type{<:PhotoFluxClassifier}) = PhotoFlux.PhotoFluxClassifier

end
