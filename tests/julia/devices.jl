# Fits, evaluations and predictions on a device, with an array type that stands in for a GPU's: JLArrays forbids single elements to be
# read from the host as a GPU does, and runs the same kernels. What no array type brings is a convolution: here NNlib's for a CPU
# stands in for the device's library.
using PhotoFlux: Buffers, DeviceBuffers, MLDataDevices, NNlib, SplitMix, Zygote, device_name, has_device_path, has_fast_path, kernel_penalties, kernels,
    loss_of, maxpool2, on_device, on_host, open_device, start_dropout!, targets, total_gradient, train_step!, inference
using Random: rand!

# `PHOTOFLUX_TEST_DEVICE=cuda` takes the device of that name instead.
const NAMED = get(ENV, "PHOTOFLUX_TEST_DEVICE", "")

if isempty(NAMED) && Base.find_package("JLArrays") === nothing
    @info "JLArrays is not installed: what runs on a device did not run."
    @test_skip "devices, for want of JLArrays"
else

if isempty(NAMED)
    @eval begin
        using JLArrays: JLArrays, JLArray

        JLArrays.allowscalar(false)

        struct StandIn <: MLDataDevices.AbstractGPUDevice end
        JLArrays.Adapt.adapt_storage(::StandIn, x::AbstractArray) = JLArray(x)
        MLDataDevices.get_device(::JLArray) = StandIn()

        # Its kernels have run when they are launched.
        JLArrays.KernelAbstractions.synchronize(::JLArrays.JLBackend) = nothing

        const DEVICE = StandIn()
        NNlib.conv!(y::JLArray{Float32,4}, x::JLArray{Float32,4}, w::JLArray{Float32,4}, dims::NNlib.DenseConvDims; keywords...) =
            copyto!(y, NNlib.conv(Array(x), Array(w), dims))
        NNlib.∇conv_filter!(dw::JLArray{Float32,4}, x::JLArray{Float32,4}, dy::JLArray{Float32,4}, dims::NNlib.DenseConvDims; keywords...) =
            copyto!(dw, NNlib.∇conv_filter(Array(x), Array(dy), dims))
        NNlib.∇conv_data!(dx::JLArray{Float32,4}, dy::JLArray{Float32,4}, w::JLArray{Float32,4}, dims::NNlib.DenseConvDims; keywords...) =
            copyto!(dx, NNlib.∇conv_data(Array(dy), Array(w), dims))
    end
else
    @eval const DEVICE = open_device(NAMED)
end

const ON_DEVICE = typeof(DEVICE(zeros(Float32, 1))).name.wrapper

all_on_device(model) = all(array -> array isa ON_DEVICE, Flux.trainables(model))

# A sum of n products rounds at most n times, whatever the order; the longest go over 9·64 inputs and the places of the batch.
bound(v, images) = (9 * 64 + images * prod(input_of(v))) * eps(Float32)

@testset "a step is the CPU's, $(v.name), $classes classes" for (v, classes) in [(v, 2) for v in variants()] ∪ [(variant("l2"), 3), (variant("mlp"), 3)]
    list, images = layers_of(v; classes), 7
    model = small_model(v; classes)
    moved = on_device(DEVICE, model)
    @test all_on_device(moved) && on_host(model) === model
    x, y, w = pixels(v, images), targets(rand(Xoshiro(1), Int32(0):Int32(classes - 1), images), classes), Float32[1, 2, 1, 1, 0.5, 1, 1]
    loss, penalties = loss_of(v.loss, classes), kernel_penalties(list)
    @test has_fast_path(model, x) && has_device_path(moved, DEVICE(x)) && !has_fast_path(moved, DEVICE(x))
    # The generator is one object.
    draw(m) = (start_dropout!(m, 1, 1); m)
    expected, gradient = total_gradient(draw(model), loss, penalties, x, y, w)
    found, gradient_found = total_gradient(draw(moved), loss, penalties, DEVICE(x), y, w)
    @test found.logits isa Matrix{Float32}
    @test found.logits ≈ expected.logits rtol = bound(v, 1)
    @test found.loss ≈ expected.loss rtol = bound(v, 1)
    @test found.penalty ≈ expected.penalty rtol = length(first(Flux.trainables(model))) * eps(Float32)
    for name in kernels(list), field in (:weight, :bias)
        a, b = Array(getfield(gradient_found.layers[name], field)), getfield(gradient.layers[name], field)
        @test size(a) == size(b)
        @test maximum(abs, a .- b) <= bound(v, images) * maximum(abs, b)
    end
    # After that gradient, Adam's step is the same few operations for each weight.
    states = map(m -> Optimisers.setup(KerasAdam(), m), (model, moved))
    train_step!(draw(model), states[1], loss, penalties, x, y, w)
    train_step!(draw(moved), states[2], loss, penalties, DEVICE(x), y, w, DeviceBuffers(DEVICE))
    for name in kernels(list), field in (:weight, :bias), i in 1:2
        a, b = (getfield(s.layers[name], field).state[i] for s in states)
        @test maximum(abs, Array(b) .- a) <= 2 * bound(v, images) * maximum(abs, a)
    end
end

# Of a whole fit, on images that are on the device and on such as are sent there. The first step of Adam moves a weight by the learning
# rate whatever the size of its gradient, so where that is rounding alone the weight goes another way than on the CPU; few do.
@testset "a fit is the CPU's, $(v.name)" for v in variant.(("dropout_early_stopping", "transfer_l1"))
    data = data_of(v)
    keywords = (; epochs=2, batch_size=7, balance=v.architecture == "transfer" ? "weights" : "augment")
    expected, found = train(v, data; keywords...), train(v, data; keywords..., device=DEVICE)
    @test map(typeof, Flux.trainables(found.model)) == map(typeof, Flux.trainables(expected.model))
    for (a, b) in zip(expected.history, found.history), name in (:train_loss, :train_penalty, :validation_loss, :validation_penalty)
        @test a[name] ≈ b[name] rtol = 1e-3
    end
    @test [row.train_accuracy for row in found.history] ≈ [row.train_accuracy for row in expected.history] atol = 1 / 32
    @test (found.settings.device, found.settings.tf32) == (device_name(DEVICE), false)
    @test arrays(found.model) == arrays(train(v, data; keywords..., device=DEVICE).model)
    # On the same weights it is the rounding of a sum.
    there = evaluate(expected, data; device=DEVICE)
    @test there.total ≈ evaluate(expected, data).total rtol = 2 * bound(v, 1)
    @test predict(expected, data.images; device=DEVICE) ≈ predict(expected, data.images) rtol = 2 * bound(v, 1)
end

# A user's own network through Flux's own layers, Zygote and Optimisers: norms, a stride, a residual block, dropout inside and outside. NNlib has no means over windows
# of an array type that stands in, so there are none.
@testset "a fit of an own network is the CPU's" begin
    data, init = tiny_data(; size=(12, 10, 3)), (dims...) -> randn(Xoshiro(1), Float32, dims...) ./ 4
    chain = Flux.Chain(PhotoFlux.Rescale(1 / 255), Flux.Conv((3, 3), 3 => 8; stride=2, pad=1, bias=false, init), Flux.BatchNorm(8, Flux.relu),
        Flux.SkipConnection(Flux.Chain(Flux.Conv((3, 3), 8 => 8; pad=1, init), Flux.BatchNorm(8), Flux.Dropout(0.25)), +), Flux.relu, Flux.MaxPool((2, 2)),
        Flux.flatten, Flux.Dropout(0.25), Flux.Dense(48 => 1; init))
    fitted(; keywords...) = train(chain, data; epochs=2, batch_size=7, penalty=ElasticNet(0.001, 0.01), balance="augment", keywords...)
    expected, found = fitted(), fitted(; device=DEVICE)
    @test !has_device_path(on_device(DEVICE, expected.model), DEVICE(zeros(Float32, 12, 10, 3, 1)))
    @test map(typeof, Flux.trainables(found.model)) == map(typeof, Flux.trainables(expected.model))
    for (a, b) in zip(expected.history, found.history), name in (:train_loss, :train_penalty, :validation_loss, :validation_penalty)
        @test a[name] ≈ b[name] rtol = 1e-3
    end
    @test arrays(found.model) == arrays(fitted(; device=DEVICE).model)
    # On the same weights it is the rounding of sums.
    @test evaluate(expected, data; device=DEVICE).total ≈ evaluate(expected, data).total rtol = 1e-5
    @test predict(expected, data.images; device=DEVICE) ≈ predict(expected, data.images) rtol = 1e-5
    @test PhotoFlux.statistics(expected.model) ≈ PhotoFlux.statistics(found.model) rtol = 1e-3
end

@testset "images that do not fit are sent there, batch by batch, $(v.name)" for v in (variant("l2"), variant("transfer"))
    data = data_of(v)
    items = PhotoFlux.epoch_items(data, 3, 1, v.architecture == "transfer" ? "none" : "augment")
    push!(items, PhotoFlux.Item(1, 0))
    v.architecture == "transfer" || push!(items, PhotoFlux.Item(2, 1), PhotoFlux.Item(3, 2))
    batches(buffers) = (found = []; PhotoFlux.each_batch((chosen, x, waited) -> (push!(found, Array(x)); nothing), data, items, 7; seed=3, epoch=1, buffers); found)
    resident, sent = DeviceBuffers(DEVICE), DeviceBuffers(DEVICE)
    PhotoFlux.keep_images!(resident, data.images)
    PhotoFlux.keep_images!(sent, data.images; room=sizeof(data.images) - 1)
    @test resident.resident isa ON_DEVICE && eltype(resident.resident) == eltype(data.images) && sent.resident === nothing
    @test batches(resident) == batches(sent)
    # A device may round a product and a sum at once: of coordinates, and of pixels between which there are up to 255.
    bound = 255 * 8 * sum(PhotoFlux.image_shape(data)) * eps(Float32)
    @test all(((a, b),) -> maximum(abs, a .- b) <= bound, zip(batches(resident), batches(Buffers())))
end

@testset "dropout draws what a CPU draws, $n numbers" for n in (1, 2, 7, 1000)
    x, layer = ones(Float32, n, 1), Flux.Dropout(0.5; rng=SplitMix(5))
    layer.active = true
    drawn = rand!(SplitMix(5), zeros(Float32, n, 1))
    buffers, other = DeviceBuffers(DEVICE), SplitMix(5)
    for _ in 1:2
        y = PhotoFlux.forward!(layer, DEVICE(x), buffers, :drop)
        expected = PhotoFlux.drop!(similar(x), x, rand!(other, similar(x)), 0.5)
        @test Array(y) == expected
        @test Array(PhotoFlux.backward!(layer, DEVICE(x), y, DEVICE(3x), buffers, :drop, true, nothing)) == 3expected
    end
    @test layer.rng.state == other.state
end

# Of a convolution and the pooling after it, in one: odd sizes, one window, groups of images, and an input gradient.
@testset "pooled as it is made there, $channels, size $size_, $images images" for channels in (3 => 16, 2 => 5), size_ in ((2, 3), (7, 4), (17, 6)), images in (1, 3, 130)
    layer = PhotoFlux.Convolution((3, 3), channels, Flux.relu; init=(dims...) -> randn(Xoshiro(1), Float32, dims...))
    layer.bias .= randn(Xoshiro(2), Float32, last(channels))
    x = randn(Xoshiro(3), Float32, size_..., first(channels), images)
    found = map((layer, on_device(DEVICE, layer)), (x, DEVICE(x)), (Buffers(), DeviceBuffers(DEVICE))) do conv, images_, buffers
        stage = PhotoFlux.PooledConvolution(conv)
        y = PhotoFlux.forward!(stage, images_, buffers, :conv)
        dy = randn(Xoshiro(4), Float32, size(y))
        sink = PhotoFlux.GradientSink([])
        dx = PhotoFlux.backward!(stage, images_, y, y isa Array ? dy : DEVICE(dy), buffers, :conv, true, sink)
        Array.((y, dx, sink.arrays[:conv, :weight], sink.arrays[:conv, :bias]))
    end
    for (a, b) in zip(found...)
        @test maximum(abs, a .- b) <= images * prod(size_) * 27 * eps(Float32) * maximum(abs, a)
    end
end

@testset "pooling is the CPU's, size $size_" for size_ in ((6, 4, 3, 2), (7, 5, 1, 1), (2, 2, 1, 3), (3, 9, 2, 2), (1, 2, 1, 1))
    # Equal elements, and such as NNlib takes for equal.
    x = rand(Xoshiro(1), Float32[1, 1.0001, 2, -1], size_)
    y, back = Zygote.pullback(maxpool2, x)
    z, there = Zygote.pullback(maxpool2, DEVICE(x))
    dy = randn(Xoshiro(2), Float32, size(y))
    @test Array(z) == y && z isa ON_DEVICE
    @test Array(only(there(DEVICE(dy)))) == only(back(dy))
end

# Any layers that Flux can differentiate, through Zygote and Optimisers: with ours among them the gradient is still exact.
@testset "a chain of other layers goes through Zygote" begin
    model = Flux.Chain(; scale=PhotoFlux.Rescale(1 / 255), conv=PhotoFlux.Convolution((3, 3), 3 => 4, Flux.relu), pool=maxpool2,
        norm=Flux.BatchNorm(4), stride=Flux.Conv((3, 3), 4 => 4; stride=2, pad=1), skip=Flux.SkipConnection(Flux.Conv((3, 3), 4 => 4, tanh; pad=1), +),
        flat=Flux.flatten, output=Flux.Dense(36 => 1))
    moved = on_device(DEVICE, deepcopy(model))
    foreach(Flux.trainmode!, (model, moved))
    x, y, w = pixels(variant("l2"), 5), targets(Int32[0, 1, 1, 0, 1], 2), ones(Float32, 5)
    @test !has_device_path(moved, DEVICE(x))
    penalties = [:conv => L2(0.01f0)]
    (expected, gradient), (found, gradient_found) = (total_gradient(m, loss_of("cross_entropy", 2), penalties, a, y, w) for (m, a) in ((model, x), (moved, DEVICE(x))))
    @test found.logits isa Matrix{Float32}
    @test found.logits ≈ expected.logits rtol = 1e-5
    # The mean that BatchNorm takes away leaves the bias before it without a gradient but for rounding.
    for (name, field) in ((:conv, :weight), (:stride, :weight), (:output, :weight), (:output, :bias))
        @test Array(getfield(gradient_found.layers[name], field)) ≈ getfield(gradient.layers[name], field) rtol = 1e-4
    end
    states = map(m -> Optimisers.setup(KerasAdam(), m), (model, moved))
    losses = map(((model, x), (moved, DEVICE(x))), states) do (m, a), state
        [train_step!(m, state, loss_of("cross_entropy", 2), penalties, a, y, w).loss for _ in 1:5]
    end
    @test losses[1] ≈ losses[2] rtol = 1e-4
    @test all_on_device(moved) && last(losses[2]) < first(losses[2])
    Flux.testmode!(moved)
    @test PhotoFlux.logits(moved, x; batch_size=2) ≈ PhotoFlux.logits(on_host(moved), x) rtol = 1e-5
end

# Beside views and the like on the host, a step leaves nothing on the device that the next does not use.
@testset "a step reuses its arrays there, $name" for name in ("dropout", "mlp")
    v = variant(name)
    model, buffers = on_device(DEVICE, small_model(v)), DeviceBuffers(DEVICE)
    optimiser, x, y = Optimisers.setup(KerasAdam(), model), DEVICE(pixels(v, 8)), targets(Int32[0, 1, 1, 0, 1, 0, 0, 1], 2)
    step() = train_step!(model, optimiser, loss_of(v.loss, 2), kernel_penalties(layers_of(v)), x, y, ones(Float32, 8), buffers)
    step()
    held = [pointer_from_objref(a) for arrays in (buffers.floats, buffers.bytes) for a in values(arrays)]
    step()
    @test held == [pointer_from_objref(a) for arrays in (buffers.floats, buffers.bytes) for a in values(arrays)]
end

# What `verify` compares with Keras; Adam's first step moves a weight by the learning rate whatever the size of its gradient.
@testset "the numbers of a proof are the CPU's, $(v.name)" for v in variant.(("l2", "dense_dropout", "transfer_l1"))
    list, B, steps = layers_of(v), 5, 3
    images = v.architecture == "transfer" ? rand(Xoshiro(1), Float32, input_of(v)..., B, steps) : rand(Xoshiro(1), UInt8, input_of(v)..., B, steps)
    labels = rand(Xoshiro(2), Int32[0, 1], B, steps)
    masks = v.name == "dense_dropout" ? Dict("dense1_dropout" => rand(Xoshiro(3), Float32[0, 2], 64, B, steps)) : Dict()
    mktempdir() do root
        weights = joinpath(root, "w.safetensors")
        write_weights(weights, small_model(v), list)
        expected, found = (PhotoFlux.trace(v, weights, images, labels, 2; learning_rate=0.001, masks, device) for device in ("cpu", DEVICE))
        @test first.(found) == first.(expected)
        for ((name, a), (_, b)) in zip(expected, found)
            within = startswith(name, "final") || startswith(name, "first") ? 0.002 * steps : bound(v, B) * max(maximum(abs, a), 1e-6)
            @test b isa Array && maximum(abs, a .- b) <= (name in ("loss", "total", "penalty") ? 1e-3 * maximum(a) : within)
        end
    end
end

@testset "a loss that is not finite changes no weight there" begin
    v = variant("l2")
    model = on_device(DEVICE, small_model(v))
    before = arrays(on_host(model))
    x = pixels(v, 3)
    x[1] = NaN
    result = train_step!(model, Optimisers.setup(KerasAdam(), model), loss_of(v.loss, 2), kernel_penalties(layers_of(v)), DEVICE(x), targets(Int32[0, 1, 1], 2), ones(Float32, 3), DeviceBuffers(DEVICE))
    @test !isfinite(result.loss) && arrays(on_host(model)) == before
    err = try train(variant("dense_l2"), data_of(variant("dense_l2")); epochs=3, batch_size=7, learning_rate=1e30, device=DEVICE) catch err; err end
    @test err isa PhotoFlux.DivergedError && all(array -> array isa Array && all(isfinite, array), Flux.trainables(err.run.model))
end

@testset "a run that was trained there is saved and read as any other" begin
    v = variant("early_stopping")
    run = train(v, data_of(v); epochs=3, batch_size=7, device=DEVICE)
    mktempdir() do root
        back = load_run(save_run(joinpath(root, "run"), run))
        @test arrays(back.model) == arrays(run.model)
        @test (back.settings.device, back.settings.tf32) == (device_name(DEVICE), false)
        more = train(v, data_of(v); epochs=1, batch_size=7, initial=back, device=DEVICE)
        @test more.initial.fingerprint == PhotoFlux.fingerprint(run.model, layers(run))
    end
end

end

@testset "devices that there are not" begin
    @test open_device("cpu") isa MLDataDevices.CPUDevice
    @test open_device(MLDataDevices.CPUDevice()) isa MLDataDevices.CPUDevice
    @test device_name(MLDataDevices.CUDADevice()) == "cuda"
    @test_throws "`device` must be one of cpu, amdgpu, cuda, metal; received: \"cdua\". Did you mean cpu or cuda?" open_device("cdua")
    if Base.find_package("CUDA") === nothing
        @test_throws r"which needs the Julia package CUDA, and the project .* does not have it. Run `photoflux doctor --add cuda`" train("dense_l2", data_of(variant("dense_l2")); device="cuda")
    end
    @test_throws "`tf32` is of a GPU, and the device is the CPU" train("dense_l2", data_of(variant("dense_l2")); tf32=true)
    # Of a kind whose package is not loaded.
    @test_throws r"there is no such device that works here: .*Take \"cpu\"" PhotoFlux.working_device(MLDataDevices.MetalDevice, "metal")
end
