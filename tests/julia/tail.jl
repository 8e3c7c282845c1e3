# The tail of a backbone made here: its step against Zygote's gradient through Flux's layers in Float64.
using PhotoFlux: Buffers, Tail, has_fast_path, loss_of, targets, total_gradient
using PhotoFlux.Flux: Chain, Conv, Dense, GlobalMeanPool, SkipConnection, relu6

# Every kind of block: with and without expansion, of both kernels and strides, with and without addition, channels that are no
# whole vectors and more than a job's. Biases at which ReLU6 lets through, cuts off below and above.
function made_tail(width, height; seed=1)
    rng = Xoshiro(seed)
    conv(k, (inputs, outputs), σ=identity; stride=1, groups=1, pad=0) =
        Conv(randn(rng, Float32, k, k, inputs ÷ groups, outputs) .* 1.5f0 ./ sqrt(Float32(k * k * inputs ÷ groups)),
            randn(rng, Float32, outputs) .+ 1, σ; stride, groups, pad)
    pointwise(channels, σ=identity) = conv(1, channels, σ)
    function depthwise(k, channels, stride)
        pad = PhotoFlux.same_padding((k, k), (width, height), stride)
        width, height = cld(width, stride), cld(height, stride)
        return conv(k, channels => channels, relu6; stride, groups=channels, pad)
    end
    block(k, stride, inputs, middle, outputs) =
        Chain(; expand=pointwise(inputs => middle, relu6), depthwise=depthwise(k, middle, stride), project=pointwise(middle => outputs))
    size_ = (width, height, 6)
    chain = Chain(;
        block1=Chain(; depthwise=depthwise(3, 6, 1), project=pointwise(6 => 10)),
        block2=SkipConnection(block(5, 1, 10, 70, 10), +),
        block3=SkipConnection(block(3, 1, 10, 20, 10), +),
        block4=block(5, 2, 10, 30, 12),
        block5=block(3, 2, 12, 24, 13),
        top=pointwise(13 => 21, relu6), mean=GlobalMeanPool())
    return Tail(chain, size_)
end

function made_model(width, height)
    rng = Xoshiro(5)
    standardise = PhotoFlux.Standardise(rand(rng, Float32, 21), 1 .+ rand(rng, Float32, 21))
    output = Dense(randn(rng, Float32, 3, 21) ./ 4, randn(rng, Float32, 3))
    return Chain(; tail=made_tail(width, height), standardise, flatten=Flux.flatten, output)
end

function batch_of(width, height, images)
    x = 4 .* rand(Xoshiro(2), Float32, 1, 1, 6width * height, images) .- 2
    return x, targets(rand(Xoshiro(3), Int32(0):Int32(2), images), 3), rand(Xoshiro(4), Float32, images)
end

# The derivative of f at an array in a direction of ±1, by central differences in Float64; f(change) is called with what is added to the
# array. The step is so small that hardly a ReLU6 changes sides, and so large that of Float64's digits enough are left.
function directional(f, direction)
    h = 1e-7
    return (f(h .* direction) - f(-h .* direction)) / 2h
end

signs(seed, array) = rand(Xoshiro(seed), (-1.0, 1.0), size(array))

# The arrays of a model's tail and of its output, and what stands in their places in a gradient of the same form.
function trained(model)
    paths = [[:tail, path..., field] for (; path) in PhotoFlux.tail_convolutions(model[:tail]) for field in (:weight, :bias)]
    return [paths; [[:output, :weight]]; [[:output, :bias]]]
end

at_path(tree, path) = foldl(getproperty, path; init=tree)

# A sum of all pixels of all images, or of 70 channels, rounds at most that many times, relative to the largest gradient of an array;
# in a direction the errors of n weights add up like √n.
rounding(g, width, height, images) = (width * height * images + 70) * eps(Float32) * sqrt(length(g)) * max(maximum(abs, g), 1e-3)

@testset "is the derivative in Float64, $width×$height, $images images" for (width, height, images) in ((7, 6, 1), (9, 9, 5), (3, 8, 40), (1, 1, 3))
    model, loss = made_model(width, height), loss_of("cross_entropy", 3)
    x, y, weights = batch_of(width, height, images)
    @test has_fast_path(model, x)
    result, gradient = total_gradient(model, loss, [], x, y, weights)
    exact, x64 = Flux.f64(model), Float64.(x)
    @test !has_fast_path(exact, x64)
    # Its own call, by Flux's layers, is the same function.
    @test result.logits ≈ exact(x64) rtol = 1e-5
    @test model(x) ≈ exact(x64) rtol = 1e-5
    value() = PhotoFlux.data_loss(loss, exact(x64), Float64.(y), reshape(Float64.(weights), 1, :))
    @test length(trained(model)) == 2 * 15 + 2
    for (seed, path) in enumerate(trained(model))
        w, g = at_path(exact.layers, path), at_path(gradient.layers, path)
        @test size(w) == size(g)
        d = signs(seed, w)
        found = directional(d) do change
            w .+= change
            result = value()
            w .-= change
            result
        end
        @test abs(sum(g .* d) - found) <= rounding(g, width, height, images)
    end
end

@testset "a NaN is not hidden" begin
    model = made_model(5, 5)
    x, y, weights = batch_of(5, 5, 2)
    x[1, 1, 7, 2] = NaN
    result, _ = total_gradient(model, loss_of("cross_entropy", 3), [], x, y, weights)
    @test isnan(result.loss) && all(isfinite, result.logits[:, 1])
end

@testset "the gradient of the tail's input" begin
    tail, x = made_tail(6, 5), first(batch_of(6, 5, 3))
    buffers, sink = Buffers(), PhotoFlux.GradientSink([])
    features = PhotoFlux.forward!(tail, x, buffers, :tail)
    dy = randn(Xoshiro(6), Float32, size(features))
    dx = copy(PhotoFlux.backward!(tail, x, features, dy, buffers, :tail, true, sink))
    exact, d = Flux.f64(tail), signs(7, x)
    found = directional(change -> sum(exact(x .+ change) .* dy), d)
    @test abs(sum(dx .* d) - found) <= rounding(dx, 6, 5, 3)
end

@testset "other layers are left to Flux" begin
    changed(; layers...) = Tail(Chain(; merge(made_tail(6, 5).chain.layers, layers)...), (6, 5, 6))
    others = [
        changed(; top=Conv((1, 1), 13 => 21, Flux.relu)),
        changed(; top=Conv((3, 3), 13 => 21, relu6; pad=1)),
        changed(; mean=Flux.GlobalMaxPool()),
        changed(; block2=SkipConnection(made_tail(6, 5).chain[:block2].layers, (a, b) -> a .- b)),
        Flux.f64(made_tail(6, 5)),
    ]
    x = first(batch_of(6, 5, 2))
    for tail in others
        @test !has_fast_path(Chain(; tail), x)
        @test size(tail(x)) == (1, 1, 21, 2)
    end
    @test has_fast_path(Chain(; tail=changed()), x)
end

# Beside small things (packed taps of depthwise kernels, tasks, closures) a step makes no array of an activation's size.
@testset "a step reuses its arrays" begin
    model = made_model(24, 24)
    optimiser, buffers = Optimisers.setup(KerasAdam(), model), Buffers()
    x, y, weights = batch_of(24, 24, 16)
    step() = PhotoFlux.train_step!(model, optimiser, loss_of("cross_entropy", 3), [], x, y, weights, buffers)
    step()
    @test (@allocated step()) < 1_000_000
end
