# MLJ's interface. What it does is in ext/PhotoFluxMLJExt.jl, which is loaded where MLJ is.

"""
    PhotoFluxClassifier(; variant = "l2", seed = 42, l1, l2, loss, epochs, batch_size, learning_rate, balance, schedule = "constant", callbacks, max_time, device = "cpu")

Return an MLJ model of a variant or of a network of your own, for `machine`, `evaluate!`, `TunedModel` and whatever else takes a `Probabilistic` one.
MLJ, or MLJBase, must be loaded.

Its data are a vector of images, all of one size, and a categorical vector of their classes. An image is a matrix of `Gray` or `RGB` colours, as
JuliaImages has it, rows first; or `W×H×C` or `W×H` of `UInt8`, 0 to 255. A tenth of the images of each class becomes the validation part, on which early
stopping and the losses of the history are; equal images stay on one side.

# Arguments
- `variant`: a name of the table, a `"my.toml:name"`, a [`Variant`](@ref), or a `Chain` as for [`train`](@ref).
- `l1::Real`, `l2::Real`, `loss::AbstractString`: other coefficients of the variant's penalties, 0 or more, and another loss; as in [`variant`](@ref).
- `epochs`, `batch_size`, `learning_rate`, `seed`, `balance`, `schedule`, `callbacks`, `max_time`, `device`: as in [`train`](@ref); what is `nothing` is the
  variant's own.

# Returns
- An MLJ model, a mutable struct with these fields. Fitted, `fitted_params` has the [`Run`](@ref), `report` has `history`, `kept_epoch`, `ended` and `notes`,
  `training_losses` the totals of the training part; `predict` gives a `UnivariateFinite` for each image, over the classes that were fitted.

# Throws
- `ArgumentError`: neither MLJ nor MLJBase is loaded; and, of a fit, what [`train`](@ref) throws, or images of another kind.

# Examples
```julia
using MLJ, PhotoFlux
images, digits = [rand(UInt8, 28, 28) for _ in 1:100], categorical(rand(["0", "1"], 100))
mach = machine(PhotoFluxClassifier(variant = "dense_l2", epochs = 2), images, digits)
fit!(mach)
predict_mode(mach, images[1:3])
```
"""
PhotoFluxClassifier(; keywords...) = mlj_classifier(Val(:mlj); keywords...)

mlj_classifier(interface; keywords...) = throw(ArgumentError("PhotoFluxClassifier is a model for MLJ, which is not loaded. Load it first: `using MLJ`."))
