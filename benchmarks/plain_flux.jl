# The plain Flux side of run.py: the same chain of Flux's own layers, NNlib's convolution, Optimisers' Adam, the penalty in
# the loss, as Flux's documentation has it. Nothing of PhotoFlux but its table of variants.
using Flux, TOML

include("serve.jl")

const TABLE = TOML.parsefile(joinpath(@__DIR__, "..", "julia", "variants.toml"))

function chain(v, (w, h, c), classes)
    rate(group) = get(get(v, "dropout", Dict()), group, nothing)
    dropout(group) = rate(group) === nothing ? () : (Dropout(rate(group)),)
    conv(ch) = Conv((3, 3), ch, relu; pad=SamePad())
    body, features = v["architecture"] == "photo_cnn" ?
        ((conv(c => 16), MaxPool((2, 2)), dropout("pool")..., conv(16 => 32), conv(32 => 64)), (w ÷ 2) * (h ÷ 2) * 64) :
        ((), w * h * c)
    head = ()
    for units in v["hidden"]
        head, features = (head..., Dense(features => units, relu), dropout("hidden")...), units
    end
    return Chain(x -> x ./ 255.0f0, body..., Flux.flatten, head..., Dense(features => (classes == 2 ? 1 : classes)))
end

function penalty(v, model)
    kernels = filter(layer -> layer isa Union{Conv,Dense}, collect(model.layers))
    total = 0.0f0
    for (i, layer) in enumerate(kernels)
        group = layer isa Conv ? "conv" : i == length(kernels) ? "output" : "hidden"
        λ = get(get(v, "penalty", Dict()), group, Dict())
        haskey(λ, "l1") && (total += Float32(λ["l1"]) * sum(abs, layer.weight))
        haskey(λ, "l2") && (total += Float32(λ["l2"]) * sum(abs2, layer.weight))
    end
    return total
end

function step(v, input, batch, classes)
    model = chain(v, input, classes)
    optimiser = Flux.setup(Adam(v["learning_rate"]), model)
    x, labels = material(input, batch, classes)
    y = classes == 2 ? reshape(Float32.(labels), 1, :) : Flux.onehotbatch(labels, 0:(classes - 1))
    loss = classes == 2 ? Flux.logitbinarycrossentropy : Flux.logitcrossentropy
    return function ()
        value, gradient = Flux.withgradient(model) do m
            haskey(v, "penalty") ? loss(m(x), y) + penalty(v, m) : loss(m(x), y)
        end
        Flux.update!(optimiser, model, only(gradient))
        return value
    end
end

function prediction(v, input, batch, classes)
    model = Flux.testmode!(chain(v, input, classes))
    x, _ = material(input, batch, classes)
    return () -> sum(model(x))
end

const KINDS = Dict{String,Any}("step" => step, "predict" => prediction)

measure(kind, name, rest) = KINDS[kind](TABLE[name], shape(rest)...)

serve(measure)
