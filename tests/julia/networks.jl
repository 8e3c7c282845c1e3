# A user's own chains: what can be described and what is refused, and a network with norms, strides, a residual block and dropout that is fitted,
# killed, resumed, written, read, evaluated, and moved to a device.
using PhotoFlux: NNlib, NetworkLayers, Zygote, describe, build_network, arrays_of, check_network, dropouts, has_fast_path, inference, maxpool2, network_arrays,
    start_dropout!, statistics, total_gradient, kernel_penalties, loss_of, targets
using PhotoFlux.Flux: AdaptiveMaxPool, AdaptiveMeanPool, BatchNorm, Chain, Conv, CrossCor, Dense, Dropout, GlobalMaxPool, GlobalMeanPool, GroupNorm,
    InstanceNorm, LayerNorm, MaxPool, MeanPool, Parallel, SamePad, Scale, SkipConnection, relu, gelu

const INPUT = (12, 10, 3)
drawn(dims...) = randn(Xoshiro(1), Float32, dims...) ./ 4

# Norms, other strides, a residual block in a block, branches and dropout inside and outside.
own_network(classes=2; init=drawn) = Chain(
    PhotoFlux.Rescale(1 / 255),
    Conv((3, 3), 3 => 8; stride=2, pad=1, bias=false, init),
    BatchNorm(8, relu),
    SkipConnection(Chain(conv=Conv((3, 3), 8 => 8; pad=SamePad(), init), norm=BatchNorm(8), drop=Dropout(0.25)), +),
    relu,
    MaxPool((3, 3); pad=1, stride=2),
    GlobalMeanPool(),
    Flux.flatten,
    Dropout(0.25),
    Dense(8 => PhotoFlux.outputs(classes); init),
)

rebuilt(chain) = (arrays = network_arrays(chain); build_network(describe(chain), (name, role, dims) -> arrays[name]))
as_file(chain) = PhotoFlux.parse_json(PhotoFlux.json_text(describe(chain)))

# Each kind of layer in every form of its fields: what is built from the description computes what the layer did.
@testset "described and built again, $(nameof(typeof(layer)))" for (layer, input) in [
    Conv((3, 5), 3 => 4, gelu; stride=(2, 1), pad=(1, 2, 0, 1), dilation=(1, 2)) => INPUT,
    Conv((3, 3), 3 => 6, relu; pad=SamePad()) => INPUT,
    Conv((1, 1), 4 => 6; groups=2, bias=false) => (5, 4, 4),
    CrossCor((3, 3), 3 => 2, tanh; stride=2, pad=1) => INPUT,
    PhotoFlux.Convolution((3, 3), 3 => 4, relu; stride=2) => INPUT,
    MaxPool((2, 2)) => (5, 7, 3), MaxPool((3, 2); pad=(1, 0), stride=2) => INPUT, MeanPool((3, 3); pad=1, stride=(1, 2)) => INPUT,
    AdaptiveMaxPool((3, 2)) => INPUT, AdaptiveMeanPool((3, 2)) => INPUT, GlobalMaxPool() => INPUT, GlobalMeanPool() => INPUT,
    BatchNorm(3, relu; eps=0.01, momentum=0.3) => INPUT, BatchNorm(3; affine=false) => INPUT, BatchNorm(3; track_stats=false) => INPUT,
    InstanceNorm(3, relu; affine=true, track_stats=true) => INPUT, GroupNorm(4, 2, gelu) => (3, 3, 4), GroupNorm(4, 4; affine=false) => (3, 3, 4),
    LayerNorm((12, 10), gelu) => INPUT, LayerNorm((12, 10, 3); affine=false) => INPUT, Scale(1, 1, 3) => INPUT, Scale(10, 10; bias=false) => (10, 10, 3),
    Dropout(0.5) => INPUT, Dropout(0.25; dims=3) => INPUT, Flux.flatten => INPUT, gelu => INPUT, PhotoFlux.Rescale(0.5) => INPUT, maxpool2 => INPUT,
    SkipConnection(Chain(Conv((3, 3), 3 => 3; pad=1), relu), +) => INPUT, Parallel(vcat; a=Chain(Flux.flatten, Dense(360 => 4)), last=Flux.flatten) => INPUT,
    Parallel(.*; a=identity, b=Conv((1, 1), 3 => 3)) => INPUT, SkipConnection(Conv((1, 1), 3 => 2), PhotoFlux.cat_channels) => INPUT, Chain(Flux.flatten, Dense(360 => 5, tanh; bias=false), LayerNorm(5)) => INPUT]
    # Parameters that are not as they start.
    chain = Chain(first=layer)
    foreach(((name, array),) -> array .+= abs.(drawn(size(array)...)), arrays_of(chain))
    x = 2 .* drawn(input..., 4)
    again = rebuilt(chain)
    @test again(x) ≈ chain(x) rtol = 1e-5 atol = 1e-6
    @test as_file(again) == as_file(chain) == describe(chain)
    @test [name => size(array) for (name, array) in arrays_of(again)] == [name => size(array) for (name, array) in arrays_of(chain)]
    @test PhotoFlux.stored_shapes(NetworkLayers(describe(chain), input, 1, NoPenalty())) == [name => reverse(size(array)) for (name, array) in arrays_of(chain)]
end

@testset "what can be written only as code is refused" begin
    struct Mine end
    (::Mine)(x) = x
    message(chain) = try (describe(chain); "") catch err; err isa ArgumentError ? err.msg : rethrow() end
    @test occursin("`layer2` is an anonymous function", message(Chain(Flux.flatten, x -> 2x)))
    @test occursin("`inside.layers.layer1` is a Mine", message(Chain(inside=SkipConnection(Chain(Mine()), +))))
    @test occursin("connection of `layer1` is an anonymous function", message(Chain(SkipConnection(Dense(2 => 2), (a, b) -> a))))
    @test occursin("activation of `layer1` is an anonymous", message(Chain(Dense(2 => 2, x -> x^2))))
    @test occursin("the loss is of logits", message(Chain(Dense(2 => 2), Flux.softmax)))
    @test occursin("no layers", message(Chain()))
    shared = Dense(3 => 3)
    @test occursin("share an array", message(Chain(shared, shared)))
    @test occursin("must have a name of letters", message(Chain(; Symbol("a.b") => Dense(2 => 2))))
end

# What a file may have in place of a description.
@testset "a description that does not describe is refused" begin
    good = describe(own_network())
    built(d) = PhotoFlux.stored_shapes(NetworkLayers(PhotoFlux.as_network(d), INPUT, 1, NoPenalty()))
    function changed(f)
        d = PhotoFlux.as_network(good)
        f(d)
        return d
    end
    dense(d) = last(d["layers"])[2]
    for break! in (d -> delete!(d, "layers"), d -> d["layer"] = "Dense", d -> d["layers"] = 1, d -> d["layers"] = [], d -> dense(d)["inputs"] = 10^12,
        d -> dense(d)["inputs"] = -1, d -> dense(d)["inputs"] = "8", d -> dense(d)["activation"] = "run", d -> dense(d)["layer"] = "Base.run", d -> delete!(dense(d), "bias"),
        d -> dense(d)["bias"] = 1, d -> last(d["layers"])[1] = "a/b", d -> push!(d["layers"], first(d["layers"])), d -> push!(d["layers"], ["x"]),
        d -> d["layers"][3][2]["epsilon"] = -1, d -> d["layers"][2][2]["stride"] = [0, 1], d -> d["layers"][9][2]["rate"] = 1.0,
        d -> foldl((inner, _) -> (inner["layers"] = Any[Any["a", Dict{String,Any}("layer" => "Chain")]]; inner["layers"][1][2]), 1:40; init=d))
        @test_throws ArgumentError built(changed(break!))
    end
    @test_throws ArgumentError Variant(name="a", architecture="chain", hidden=Int[])
    @test_throws ArgumentError Variant(name="a", architecture="chain", hidden=[3], chain=good)
    @test_throws ArgumentError Variant(name="a", architecture="dense", hidden=[3], chain=good)
    @test_throws ArgumentError Variant(name="a", architecture="chain", hidden=Int[], chain=good, penalty=Dict{String,PhotoFlux.Penalty}("hidden" => L2(1)))
end

# The gradient of windows that overlap and are padded, against the definition: to the first of the largest numbers. Among these there are such as NNlib
# takes for equal, and equal ones.
@testset "the gradient of the largest in a window, $layer" for layer in (MaxPool((3, 3); pad=1, stride=2), MaxPool((2, 3); stride=1), GlobalMaxPool(), AdaptiveMaxPool((2, 3)))
    x = 1 .+ 1.0f-4 .* rand(Xoshiro(2), Float32, 7, 6, 2, 3)
    x[2:3, 2, 1, 1] .= 2
    pool = PhotoFlux.ExactPool(layer)
    windows = PhotoFlux.windows_of(layer, x)
    y, back = Zygote.pullback(pool, x)
    @test y == layer(x)
    dy = rand(Xoshiro(3), Float32, size(y))
    expected, (k₁, k₂), (left, _, top, _), (s₁, s₂) = zeros(Float32, size(x)), NNlib.kernel_size(windows), NNlib.padding(windows), NNlib.stride(windows)
    for n in axes(y, 4), c in axes(y, 3), j in axes(y, 2), i in axes(y, 1)
        places = [(u, v) for v in (j - 1) * s₂ - top .+ (1:k₂) for u in (i - 1) * s₁ - left .+ (1:k₁) if checkbounds(Bool, x, u, v, c, n)]
        u, v = places[argmax([x[u, v, c, n] for (u, v) in places])]
        expected[u, v, c, n] += dy[i, j, c, n]
    end
    # At most nine terms in another order.
    @test only(back(dy)) ≈ expected rtol = 9 * eps(Float32)
end

quick(chain, data; kwargs...) = train(chain, data; epochs=3, batch_size=7, penalty=L2(0.01), patience=2, kwargs...)
files(run) = mktempdir(root -> (save_run(joinpath(root, "run"), run); (read(joinpath(root, "run", "weights.safetensors")), load_run(joinpath(root, "run")))))

@testset "an own network, $classes classes" for classes in (2, 3)
    data, chain = tiny_data(; classes, size=INPUT), own_network(classes)
    before = deepcopy(network_arrays(chain))
    run = quick(chain, data; epochs=4)
    @test network_arrays(chain) == before
    @test run.history[end].train_loss < run.history[1].train_loss
    @test run.variant.architecture == "chain" && run.history[1].train_penalty > 0
    # Norms by the statistics of the training, dropout off, whatever the mode.
    found = evaluate(run, data)
    Flux.trainmode!(run.model)
    @test isequal(evaluate(run, data), found)
    Flux.testmode!(run.model)
    p = predict(run, data.images)
    @test size(p) == (classes, length(data)) && predict(run, data.images; batch_size=5) ≈ p
    # Written and read without code.
    bytes, again = files(run)
    @test isequal(evaluate(again, data), found)
    @test predict(again, data.images) == p
    @test again.variant.chain == run.variant.chain && layers(again).outputs == PhotoFlux.outputs(classes)
    @test first(files(again)) == bytes
    # For readers without Flux: shapes and arrays of each layer.
    norm = run.variant.chain["layers"][4][2]["layers"][1][2]["layers"][2][2]
    @test norm["output"] == [5, 6, 8] && norm["arrays"] == [[name, [8]] for name in ("beta", "gamma", "mean", "variance")]
    @test run.variant.chain["layers"][2][2]["arrays"] == [["kernel", [8, 3, 3, 3]]] && last(run.variant.chain["layers"])[2]["output"] == [PhotoFlux.outputs(classes)]
    # The same seed, the same bytes; from the description the seed gives the weights.
    @test first(files(quick(chain, data; epochs=4))) == bytes
    by_seed(seed) = first(files(train(run.variant, data; epochs=1, batch_size=7, seed)))
    @test by_seed(1) == by_seed(1) != by_seed(2)
    going_on = train(run.variant, data; epochs=1, batch_size=7, learning_rate=1e-30, initial=run)
    @test PhotoFlux.fingerprint(going_on.model, layers(going_on)) != "" && going_on.initial.fingerprint == PhotoFlux.fingerprint(run.model, layers(run))
end

struct Killed <: Exception end

@testset "an own network that was killed goes on to the same bytes" begin
    data, chain = tiny_data(; size=INPUT), own_network()
    whole = quick(chain, data; balance="augment")
    mktempdir() do root
        for kills in ([2, 3], [5, 2, 2])
            checkpoints = joinpath(root, "checkpoints")
            for (number, kill) in enumerate(kills)
                done = 0
                # Another process would draw another chain: the weights are those of the checkpoint.
                start = number == 1 ? chain : own_network(; init=(dims...) -> zeros(Float32, dims...))
                try
                    quick(start, data; balance="augment", checkpoints, checkpoint_minutes=0, resume=number > 1, on_batch=_ -> (done += 1) == kill ? throw(Killed()) : false)
                catch err
                    err isa Killed || rethrow()
                end
            end
            run = quick(chain, data; balance="augment", checkpoints, checkpoint_minutes=0, resume=true)
            @test first(files(run)) == first(files(whole))
            @test [row.validation_total for row in run.history] == [row.validation_total for row in whole.history]
            rm(checkpoints; recursive=true)
        end
        # Of another network it is said so.
        checkpoints = joinpath(root, "checkpoints")
        @test_throws Killed quick(chain, data; checkpoints, checkpoint_minutes=0, on_batch=_ -> throw(Killed()))
        @test_throws Killed quick(chain, data; checkpoints, checkpoint_minutes=0, resume=!isempty(PhotoFlux.checkpoint_files(checkpoints)), on_batch=_ -> throw(Killed()))
    end
end

# The loss is falling, the statistics are those that a fit without PhotoFlux's kernels makes, and the gradient is that of central differences in Float64.
@testset "the gradient of an own network" begin
    chain, data = own_network(3), tiny_data(; classes=3, size=INPUT)
    v = network_variant(chain, INPUT; penalty=ElasticNet(0.003, 0.01))
    list = layers(v, INPUT, 3)
    model = PhotoFlux.load_weights!(build_model(list), network_arrays(chain), list)
    penalties, loss, w = kernel_penalties(list), loss_of("cross_entropy", 3), Float32[1, 2, 1, 0.5, 1, 1, 1]
    x, y = Float32.(data.images[:, :, :, 1:7]), targets(data.labels[1:7], 3)
    @test [string(name) for (name, _) in penalties] == ["layer2", "layers.layer4.layers.layers.conv", "layer10"]
    fresh() = (m = deepcopy(model); start_dropout!(m, 1, 1); m)
    result, gradient = total_gradient(fresh(), loss, penalties, x, y, w)
    function total(m)
        z = Zygote.pullback(m -> m(x), m)[1]
        return Float64(PhotoFlux.data_loss(loss, z, y, reshape(w, 1, :))) + Float64(PhotoFlux.penalty_value(penalties, m))
    end
    @test result.loss + result.penalty ≈ total(fresh())
    # In the direction of the gradient itself, where Float32's rounding matters least.
    flat(tree) = [getfield(PhotoFlux.kernel_at(tree, name), :weight) for (name, _) in penalties]
    squared, h = sum(g -> sum(abs2, g), flat(gradient)), 1e-3
    step(sign) = (m = fresh(); foreach((a, g) -> a .+= Float32(sign * h / sqrt(squared)) .* g, flat(m), flat(gradient)); total(m))
    # What is left of h² terms and of the kinks of ReLU and of |w| within h, on top of Float32's rounding of a total near 1.
    @test (step(1) - step(-1)) / 2h ≈ sqrt(squared) rtol = 0.02
end

@testset "kernels are used where all layers have them" begin
    data = tiny_data(; size=INPUT)
    chain = Chain(PhotoFlux.Rescale(1 / 255), Conv((3, 3), 3 => 8, relu; pad=SamePad(), init=drawn), MaxPool((2, 2)), Flux.flatten, Dense(240 => 16, relu; init=drawn), Dropout(0.5), Dense(16 => 1; init=drawn))
    run = train(chain, data; epochs=1, batch_size=8)
    @test has_fast_path(run.model, zeros(Float32, INPUT..., 2))
    # As Flux has it, the kernel of a convolution is turned.
    x = Float32.(data.images)
    list = layers(network_variant(chain, INPUT), INPUT, 2)
    model = PhotoFlux.load_weights!(build_model(list), network_arrays(chain), list)
    @test PhotoFlux.logits(model, x) ≈ Flux.testmode!(deepcopy(chain))(x) rtol = 1e-4
end

# A layer of another package starts tasks and waits for them. Where all threads are a team's, which wait awake, these would never run.
@testset "layers' own calls run outside a team" begin
    outside = Bool[]
    struct Probe end
    (::Probe)(x) = (push!(outside, PhotoFlux.Kernels.running_team() === nothing); x)
    data = tiny_data(; size=INPUT)
    @test size(PhotoFlux.logits(Chain(Probe(), Flux.flatten, Dense(360 => 1)), data.images)) == (1, length(data))
    @test !isempty(outside) && all(outside)
    # Layers without a kernel are such too, of ours as well.
    @test !PhotoFlux.has_step_kernel(PhotoFlux.Convolution((3, 3), 3 => 4; stride=2))
end

@testset "a network that does not fit the images is refused" begin
    data = tiny_data(; classes=3, size=INPUT)
    message(chain; kwargs...) = try (train(chain, data; kwargs...); "") catch err; sprint(showerror, err) end
    @test occursin("numbers of size 1; expected 3", message(own_network(2)))
    @test occursin("does not take images of 12×10×3 (W×H×C): its layer `layer2`", message(Chain(Flux.flatten, Dense(7 => 3))))
    @test occursin("of size 10×8×3; expected 3", message(Chain(Conv((3, 3), 3 => 3))))
    # A last batch of one image, of which BatchNorm would make NaN.
    @test occursin("would have one image", message(own_network(3); batch_size=length(indices(data, :train)) - 1))
    @test occursin("starts from its own weights", message(own_network(3); initial="runs/mine"))
end
