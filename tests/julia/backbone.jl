# Backbones of the form of the real ones, made here; the truth is written out in Float64.
using PhotoFlux: PixelScale, PreparedBackbone, PreparedPart, backbone_activations, write_arrays
using PhotoFlux.Flux: Chain, Conv, SkipConnection
using PhotoFlux.JSON

const PATH = write_backbone(joinpath(mktempdir(), "tiny.safetensors"))

# Each layer's output for one image, by name. Keras' (kh, kw, in, out) reversed is (out, in, kw, kh); a depthwise kernel has (1, out, kw, kh).
function truth((pairs_, _), image)
    kernels, biases = last.(pairs_[1:2:end]), last.(pairs_[2:2:end])
    in_order = [permutedims(size(kernel, 1) == 1 ? permutedims(kernel, (2, 1, 3, 4)) : kernel, (3, 4, 2, 1)) for kernel in kernels]
    found = network_truth(image, zip(in_order, biases), BLOCKS)
    return [:stem; [Symbol("block", i) for i in 1:7]; :features] .=> found
end

noise(seed, dims...) = rand(Xoshiro(seed), UInt8, dims...)

# Each layer rounds its sums, of at most 9·36 terms, and passes the error before it on, at most with the gain of its kernel, which
# is about 1.5; so over the network's 22 convolutions a thousand times eps of the largest value leaves room, and an error in a
# weight or an offset is far above it.
agrees(ours, truth) = size(ours) == size(truth) && maximum(abs, ours .- truth) <= 1000 * eps(Float32) * max(maximum(abs, truth), 1)

@testset "a chain of Flux's layers" begin
    backbone = load_backbone(PATH)
    @test keys(backbone) == (:scale, :stem, (Symbol("block", i) for i in 1:7)..., :top, :mean, :flatten)
    @test backbone[:scale] === PixelScale(127, 128, (33, 33))
    @test backbone[:block1] isa Chain && keys(backbone[:block1]) == (:depthwise, :project)
    @test backbone[:block3] isa SkipConnection && keys(backbone[:block3].layers) == (:expand, :depthwise, :project)
    depthwise = backbone[:block5][:depthwise]
    @test depthwise isa Conv && depthwise.groups == size(depthwise.weight, 4) == 40 && depthwise.stride == (2, 2)
    @test length(Flux.trainables(backbone)) == length(first(made_backbone()))
end

@testset "is the network, $width×$height" for (width, height) in ((33, 33), (20, 31), (1, 2), (64, 9))
    backbone, x = load_backbone(PATH; image_size=(width, height)), noise(1, width, height, 3, 2)
    found = backbone_features(backbone, x)
    @test found isa Matrix{Float32} && size(found) == (TOP, 2)
    for n in 1:2
        expected = truth(made_backbone(), x[:, :, :, n])
        @test agrees(found[:, n], last(expected).second)
        @test agrees(vec(backbone(x)[:, n]), last(expected).second)
    end
end

# What the kernels do is in the same order of sums whatever does the rest, so the chains that they leave to Flux are made here: the
# same numbers by layers that the kernels do not have.
by_flux(chain) = PreparedBackbone([PreparedPart(chain, nothing)])

@testset "kernels and Flux's layers agree, $width×$height" for (width, height) in ((33, 33), (64, 9))
    chain, x = load_backbone(PATH; image_size=(width, height)), noise(4, width, height, 3, 3)
    @test only(PreparedBackbone(chain).parts).network !== nothing
    ours, theirs = backbone_activations(PreparedBackbone(chain), x), backbone_activations(by_flux(chain), x)
    @test first.(ours) == first.(theirs) == ["stem"; ["block$i" for i in 1:7]; "features"]
    for ((_, a), (_, b)) in zip(ours, theirs)
        @test agrees(a, b)
    end
    @test last(last(ours)) == backbone_features(chain, x)
    @test last(last(theirs)) == backbone_features(by_flux(chain), x)
    for n in axes(x, 4), ((_, a), (_, b)) in zip(ours, truth(made_backbone(), x[:, :, :, n]))
        @test agrees(selectdim(a, ndims(a), n), b)
    end
end

@testset "other chains are left to Flux" begin
    chain, x = load_backbone(PATH; image_size=(20, 20)), noise(5, 20, 20, 3, 2)
    replaced(change!) = (changed = Dict(pairs(chain.layers)); change!(changed); Chain(; (name => changed[name] for name in keys(chain))...))
    conv(layer, σ; pad=layer.pad) = Conv(layer.weight, layer.bias, σ; layer.stride, pad, layer.groups)
    others = [
        replaced(layers -> layers[:stem] = conv(layers[:stem], Flux.relu)),
        replaced(layers -> layers[:top] = conv(layers[:top], identity)),
        replaced(layers -> layers[:top] = conv(layers[:top], Flux.relu6; pad=1)),
        replaced(layers -> layers[:block3] = SkipConnection(layers[:block3].layers, (a, b) -> a .- b)),
        replaced(layers -> layers[:block1] = Chain(conv(layers[:block1][1], Flux.relu), layers[:block1][2])),
        replaced(layers -> layers[:block2] = Chain(layers[:block2].layers..., identity)),
        replaced(layers -> layers[:mean] = Flux.GlobalMaxPool()),
        Flux.f64(chain),
    ]
    for other in others
        @test only(PreparedBackbone(other).parts).network === nothing
        @test backbone_features(other, x) ≈ other(x) rtol = 1e-5
    end
    # Weights that changed are packed anew, and those that were packed before stay.
    prepared, before = PreparedBackbone(chain), backbone_features(chain, x)
    chain[:block4][:project].bias .+= 1
    @test backbone_features(chain, x) ≈ chain(x) rtol = 1e-4
    @test backbone_features(prepared, x) == before != backbone_features(chain, x)
end

@testset "images as they come" begin
    backbone, x = load_backbone(PATH), noise(2, 33, 33, 3, 5)
    features = backbone_features(backbone, x)
    for batch_size in (1, 2, 5, 100)
        @test backbone_features(backbone, x; batch_size) == features
    end
    @test backbone_features(backbone, Float32.(x)) == features
    @test backbone_features(backbone, view(x, :, :, :, 2:3)) == features[:, 2:3]
    @test size(backbone_features(backbone, x[:, :, :, 1:0])) == (TOP, 0)
    grey = x[:, :, 1:1, :]
    @test backbone_features(backbone, grey) == backbone_features(backbone, repeat(grey, 1, 1, 3, 1))
    for wrong in (x[1:32, :, :, :], x[:, 1:32, :, :], x[:, :, 1:2, :])
        @test_throws "takes images of 33×33 pixels in 1 or 3 channels; received: $(join(size(wrong)[1:3], '×'))" backbone_features(backbone, wrong)
    end
    @test_throws ArgumentError backbone_features(backbone, x; batch_size=0)
    @test_throws ArgumentError load_backbone(PATH; image_size=0)
end

@testset "by name, several side by side" begin
    cache = mktempdir()
    mkdir(joinpath(cache, "backbones"))
    for (seed, name) in enumerate(("a", "b"))
        write_backbone(joinpath(cache, "backbones", "$name.safetensors"), made_backbone(; seed, image_size=20seed))
    end
    withenv("PHOTOFLUX_CACHE" => cache) do
        a, b, both = load_backbone("a"; image_size=40), load_backbone("b"), load_backbone("a+b")
        x = noise(3, 40, 40, 3, 3)
        @test backbone_features(both, x) == [backbone_features(a, x); backbone_features(b, x)]
        @test_throws "The backbone c is not in PhotoFlux's cache: there is no $(joinpath(cache, "backbones", "c.safetensors"))" load_backbone("a+c")
    end
end

@testset "the cache is Python's" begin
    @test withenv(() -> PhotoFlux.cache_folder(), "PHOTOFLUX_CACHE" => "~/elsewhere") == joinpath(homedir(), "elsewhere")
    if Sys.islinux()
        in_home = joinpath(homedir(), ".cache", "photoflux")
        @test withenv(() -> PhotoFlux.cache_folder(), "PHOTOFLUX_CACHE" => nothing, "XDG_CACHE_HOME" => nothing) == in_home
        @test withenv(() -> PhotoFlux.cache_folder(), "PHOTOFLUX_CACHE" => "", "XDG_CACHE_HOME" => "/somewhere") == "/somewhere/photoflux"
    end
end

@testset "files that are no backbones" begin
    folder = mktempdir()
    function refused(words, change!)
        pairs, metadata = made_backbone()
        path = joinpath(folder, "changed.safetensors")
        arrays = Dict(pairs)
        change!(arrays, metadata)
        write_arrays(path, collect(arrays); metadata)
        @test_throws "$path is not a backbone of PhotoFlux: $words" load_backbone(path)
    end
    refused("its format is none; expected photoflux-backbone-1", (_, metadata) -> delete!(metadata, "format"))
    refused("its header does not describe the network", (_, metadata) -> delete!(metadata, "description"))
    refused("its header does not describe the network", (_, metadata) -> metadata["description"] = "{\"mean\": 127}")
    refused("it has no block2.expand.kernel and block2.expand.bias", (arrays, _) -> delete!(arrays, "block2.expand.bias"))
    refused("its header does not describe block8.kernel", (arrays, _) -> arrays["block8.kernel"] = zeros(Float32, 1, 1, 1, 1))
    refused("block2.project.kernel is (1, 1, 8, 12), which does not fit its 16 inputs and 12 outputs",
        (arrays, _) -> arrays["block2.project.kernel"] = zeros(Float32, 12, 8, 1, 1))
    refused("the output of block1 cannot be added to its input",
        (_, metadata) -> metadata["description"] = replace(metadata["description"], "\"residual\":false" => "\"residual\":true"))
    whole = read(PATH)
    path = joinpath(folder, "short.safetensors")
    write(path, whole[1:(end - 4)])
    @test_throws "$path is not a backbone of PhotoFlux: " load_backbone(path)
    @test_throws "There is no backbone $folder/none.safetensors" load_backbone(joinpath(folder, "none.safetensors"))
end
