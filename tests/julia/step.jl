using PhotoFlux: Buffers, Kernels, has_fast_path, kernel_penalties, kernels, loss_of, maxpool2, run_forward, stages, targets, total_gradient, train_step!, inference
using PhotoFlux.Flux: Zygote

# What a step needs, for images of any size.
function batch_of(v, input, images; classes=2)
    x = 255 .* rand(Xoshiro(1), Float32, input..., images)
    y = targets(rand(Xoshiro(2), Int32(0):Int32(classes - 1), images), classes)
    return loss_of(v.loss, classes), x, y, ones(Float32, images)
end

const INPUTS = Dict("photo_cnn" => ((2, 2, 1), (7, 4, 3), (35, 18, 3)), "dense" => ((7, 6, 1), (20, 20, 3)),
    "transfer" => ((1, 1, 1), (1, 1, 1280)))

# A sum of n products rounds at most n times; the longest here go back over 9·64 inputs and the places of the batch.
@testset "is Zygote's gradient, $(v.name), $input, $images images" for v in variants(),
        input in INPUTS[v.architecture], images in (1, 5, 33)
    model = inference(build_model(v, input, 3; rng=Xoshiro(1)))
    loss, x, y, weights = batch_of(v, input, images; classes=3)
    @test has_fast_path(model, x)
    result, gradient = total_gradient(model, loss, [], x, y, weights)
    z, back = Zygote.pullback(m -> m(x), model)
    expected = only(back(PhotoFlux.data_loss_gradient(loss, z, y, reshape(weights, 1, :))))
    @test result.logits ≈ z rtol = 1e-4
    for name in kernels(layers(v, input, 3)), field in (:weight, :bias)
        a, b = getfield(gradient.layers[name], field), getfield(expected.layers[name], field)
        @test size(a) == size(b)
        @test maximum(abs, a .- b) <= (9 * 64 + images * prod(input)) * eps(Float32) * maximum(abs, b)
    end
end

@testset "active dropout is NNlib's, $(v.name)" for v in filter(v -> !isempty(v.dropout), variants())
    model = small_model(v)
    x = pixels(v, 4)
    PhotoFlux.start_dropout!(model, 1, 1)
    expected = model(x)
    PhotoFlux.start_dropout!(model, 1, 1)
    @test last(run_forward(stages(model), x, Buffers())) ≈ expected rtol = 1e-5
end

# The same sums in the same order, so nothing differs. Sizes of one tile and of several, odd ones, one pixel.
@testset "pooled as it is made, $channels, $σ, $size_" for channels in (1 => 1, 3 => 16, 2 => 5), σ in (identity, Flux.relu),
        size_ in ((1, 1), (2, 3), (7, 4), (17, 6), (33, 21), (90, 40))
    layer = PhotoFlux.Convolution((3, 3), channels, σ; init=(dims...) -> randn(Xoshiro(1), Float32, dims...))
    layer.bias .= randn(Xoshiro(2), Float32, last(channels))
    apart = [:conv => layer, :pool => maxpool2]
    together = stages(Flux.Chain(; apart...))
    @test map(typeof, last.(together)) == [PhotoFlux.PooledConvolution{typeof(layer)}]
    x = randn(Xoshiro(3), Float32, size_..., first(channels), 3)
    results = map((apart, together)) do parts
        buffers, sink = Buffers(), PhotoFlux.GradientSink([])
        values = run_forward(parts, x, buffers)
        dy = randn(Xoshiro(4), Float32, size(last(values)))
        conv = last(parts) === last(apart) ? PhotoFlux.backward!(maxpool2, values[2], values[3], dy, buffers, :pool, true, sink) : dy
        name, first_layer = first(parts)
        dx = PhotoFlux.backward!(first_layer, x, values[2], conv, buffers, name, true, sink)
        copy.((last(values), dx, sink.arrays[:conv, :weight], sink.arrays[:conv, :bias]))
    end
    @test results[1] == results[2]
    x[1] = NaN
    @test size_ == (1, 1) || isnan(first(last(run_forward(together, x, Buffers()))))
end

@testset "what is pooled on its own" begin
    conv(channels, σ=Flux.relu; kernel=3) = PhotoFlux.Convolution((kernel, kernel), channels, σ)
    @test first.(stages(Flux.Chain(; a=conv(3 => 16), pool=maxpool2, b=conv(16 => 32), c=maxpool2))) == [:a, :b, :c]
    @test first.(stages(Flux.Chain(; a=conv(3 => 16, tanh), pool=maxpool2))) == [:a, :pool]
    @test first.(stages(Flux.Chain(; a=conv(3 => 16; kernel=5), pool=maxpool2))) == [:a, :pool]
    @test first.(stages(Flux.Chain(; pool=maxpool2, other=maxpool2))) == [:pool, :other]
end

# Beside small things (the logits, tasks, closures) a step makes no array: far less than its smallest activation.
@testset "a step reuses its arrays, $name" for (name, input, images) in (("elastic_net", (64, 64, 3), 16), ("mlp", (32, 32, 3), 128), ("dropout", (64, 64, 3), 16))
    v = variant(name)
    model = build_model(v, input, 2; rng=Xoshiro(1))
    optimiser = Optimisers.setup(KerasAdam(), model)
    loss, x, y, weights = batch_of(v, input, images)
    penalties, buffers = kernel_penalties(layers(v, input, 2)), Buffers()
    step() = train_step!(model, optimiser, loss, penalties, x, y, weights, buffers)
    step()
    @test (@allocated step()) < 1_000_000
end

# A variable that a job's closure shares with its surroundings is a race.
@testset "no closure of the kernels shares a variable" for f in (Kernels.correlate!, Kernels.correlate_gradients!,
        Kernels.winograd!, Kernels.winograd_gradients!, Kernels.large_product!, Kernels.small_product!, Kernels.blocked_gradients!,
        Kernels.apply_gradient!, Kernels.sum_groups!, Kernels.pool!, Kernels.unpool!, Kernels.foreach_range, PhotoFlux.drop!,
        Kernels.mix_channels!, Kernels.mix_gradients!, Kernels.unclamp!, Kernels.each_share, Kernels.depthwise!, Kernels.depthwise_gradients!,
        Kernels.pixel_means!, Kernels.mean_gradients!, Kernels.bottleneck_trunk!, Kernels.each_image, PhotoFlux.add!)
    @test all(method -> !occursin("Core.Box", string(Base.uncompressed_ast(method))), methods(f))
end
