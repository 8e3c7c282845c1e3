# Data that the tests make: a bright square on the left (class 0) or elsewhere, on noise; small, learnable, different
# at every index.
function tiny_data(; classes=2, size=(12, 10, 3), counts=fill(24, classes), seed=1)
    width, height, channels = size
    rng = Xoshiro(seed)
    labels = reduce(vcat, [fill(Int32(k - 1), n) for (k, n) in enumerate(counts)])
    images = rand(rng, UInt8(0):UInt8(90), width, height, channels, length(labels))
    for (n, label) in enumerate(labels)
        column = 1 + label * (width - 3) ÷ max(classes - 1, 1)
        row = rand(rng, 1:(height - 3))
        images[column:(column + 2), row:(row + 2), :, n] .+= 0x96
    end
    split = UInt8[(0, 0, 0, 0, 1, 2)[mod1(n, 6)] for n in eachindex(labels)]
    return PreparedDataset(images, labels, split, ["class $k" for k in 1:classes], "tiny", "none")
end

# A small picture size for each architecture keeps the suite fast; the layers are the real ones.
input_of(v) = v.architecture == "photo_cnn" ? (12, 10, 3) : v.architecture == "dense" ? (7, 6, 1) : (1, 1, 12)

# Features: feature k + 1 is larger in class k, and the last is the same in all.
function tiny_features(; classes=2, counts=fill(24, classes), features=12, seed=1)
    labels = reduce(vcat, [fill(Int32(k - 1), n) for (k, n) in enumerate(counts)])
    x = rand(Xoshiro(seed), Float32, 1, 1, features, length(labels))
    foreach(n -> x[1, 1, labels[n] + 1, n] += 2, eachindex(labels))
    x[1, 1, end, :] .= 0.1f0
    split = UInt8[(0, 0, 0, 0, 1, 2)[mod1(n, 6)] for n in eachindex(labels)]
    return PreparedDataset(x, labels, split, ["class $k" for k in 1:classes], "tiny", "none")
end

# Every variant with its own kind of data.
data_of(v; classes=2, kwargs...) =
    v.architecture == "transfer" ? tiny_features(; classes, kwargs...) : tiny_data(; classes, size=input_of(v), kwargs...)

layers_of(v; classes=2) = layers(v, input_of(v), classes)

small_model(v; classes=2, seed=3) = build_model(v, input_of(v), classes; rng=Xoshiro(seed))

pixels(v, n; seed=5) = (v.architecture == "transfer" ? 1 : 255) .* rand(Xoshiro(seed), Float32, input_of(v)..., n)

arrays(model) = [copy(array) for array in Flux.trainables(model)]
