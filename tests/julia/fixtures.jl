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

# Convolution with TensorFlow's `same` zeros as loops in Float64, of x[w, h, c] with kernel[kw, kh, in, out], which is not flipped; a
# depthwise one has one input for each output.
function convolved(x, kernel, bias, stride)
    (width, height, inputs), k = size(x), size(kernel, 1)
    depthwise = size(kernel, 3) == 1 && inputs > 1
    before(n) = max((cld(n, stride) - 1) * stride + k - n, 0) ÷ 2
    y = zeros(cld(width, stride), cld(height, stride), length(bias))
    for o in axes(y, 3), j in axes(y, 2), i in axes(y, 1)
        total = Float64(bias[o])
        for c in 1:size(kernel, 3), kj in 1:k, ki in 1:k
            u, v = (i - 1) * stride + ki - before(width), (j - 1) * stride + kj - before(height)
            checkbounds(Bool, x, u, v, 1) && (total += x[u, v, depthwise ? o : c] * kernel[ki, kj, c, o])
        end
        y[i, j, o] = total
    end
    return y
end

clamp6(v) = min(max(v, 0.0), 6.0)

# A network of bottlenecks in the form of kernels `K`, with the weights: pairs of a kernel and a bias in the order of the layers. Of
# each block (expand, kernel, stride, outputs).
function random_network(K, size, blocks; stem=16, top=50, seed=1)
    rng, weights = Xoshiro(seed), Any[]
    # Numbers keep their size from layer to layer, on both sides of the bounds of ReLU6.
    function drawn(kernel, inputs, outputs)
        push!(weights, (1.5f0 .* randn(rng, Float32, kernel, kernel, inputs, outputs) ./ sqrt(Float32(kernel^2 * inputs)), randn(rng, Float32, outputs)))
        return last(weights)
    end
    packed((kernel, bias), group...) = K.PackedPointwise(reshape(kernel, :, length(bias)), bias, group...)
    window(kernel, stride) = K.Window(size, kernel, stride, PhotoFlux.same_padding((kernel, kernel), size, stride))
    w = window(3, 2)
    first_, made, inputs, size = K.Stem(w, 127.0f0, 128.0f0, packed(drawn(3, 3, stem))), K.Bottleneck[], stem, K.out_size(w)
    for (expand, kernel, stride, outputs) in blocks
        w, middle = window(kernel, stride), expand * inputs
        expansion = expand > 1 ? packed(drawn(1, inputs, middle), K.CHUNK) : nothing
        depthwise, bias = drawn(kernel, 1, middle)
        depthwise = K.PackedDepthwise(dropdims(depthwise; dims=3), bias, stride)
        residual = stride == 1 && inputs == outputs
        push!(made, K.Bottleneck(w, inputs, expansion, depthwise, packed(drawn(1, middle, outputs)), residual))
        inputs, size = outputs, K.out_size(w)
    end
    return K.BottleneckNetwork(first_, made, packed(drawn(1, inputs, top))), weights
end

# What these weights make of one image in Float64: the output of the stem, of each block, and the features.
function network_truth(image, weights, blocks)
    weights = Iterators.Stateful(weights)
    conv(x, stride=1) = convolved(x, popfirst!(weights)..., stride)
    x = clamp6.(conv((Float64.(image) .- 127) ./ 128, 2))
    found = Any[x]
    for (expand, kernel, stride, outputs) in blocks
        entered = x
        expand > 1 && (x = clamp6.(conv(x)))
        x = conv(clamp6.(conv(x, stride)))
        size(x) == size(entered) && stride == 1 && (x += entered)
        push!(found, x)
    end
    x = clamp6.(conv(x))
    return push!(found, vec(sum(x; dims=(1, 2))) ./ prod(size(x)[1:2]))
end

# A backbone of the form of the real ones. (expand, kernel, stride, outputs) of each block. Channels are whole vectors and not, and every kind of block is there.
const BLOCKS = [(1, 3, 1, 8), (2, 3, 2, 12), (3, 5, 1, 12), (6, 3, 1, 20), (2, 5, 2, 36), (4, 5, 1, 36), (2, 3, 1, 40)]
const STEM, TOP = 16, 50

# Arrays in Keras' layout with the dimensions reversed, by name in the order of the network, and the header.
function made_backbone(blocks=BLOCKS; seed=1, image_size=33)
    rng, pairs = Xoshiro(seed), Pair{String,Array{Float32}}[]
    # Of a size at which the numbers stay of a size, on both sides of the bounds of ReLU6.
    function put(name, kernel, inputs, outputs)
        dims = outputs == 0 ? (1, inputs, kernel, kernel) : (outputs, inputs, kernel, kernel)
        fan = kernel^2 * (outputs == 0 ? 1 : inputs)
        push!(pairs, "$name.kernel" => randn(rng, Float32, dims) .* 1.5f0 ./ sqrt(Float32(fan)))
        push!(pairs, "$name.bias" => randn(rng, Float32, outputs == 0 ? inputs : outputs))
    end
    put("stem", 3, 3, STEM)
    inputs, described = STEM, []
    for (i, (expand, kernel, stride, outputs)) in enumerate(blocks)
        mid = expand * inputs
        expand > 1 && put("block$i.expand", 1, inputs, mid)
        put("block$i.depthwise", kernel, mid, 0)
        put("block$i.project", 1, mid, outputs)
        push!(described, (; kernel, stride, residual=stride == 1 && inputs == outputs, expand=expand > 1))
        inputs = outputs
    end
    put("top", 1, inputs, TOP)
    description = (; name="tiny", features=TOP, image_size, mean=127, scale=128, blocks=described)
    return pairs, Dict("format" => "photoflux-backbone-1", "description" => PhotoFlux.JSON.json(description))
end

write_backbone(path, (pairs, metadata)=made_backbone()) = PhotoFlux.write_arrays(path, pairs; metadata)
