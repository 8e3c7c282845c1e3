# The kernels for vectors of each width that a processor may have, whatever this one has, against NNlib in Float64.
using PhotoFlux: Kernels
using PhotoFlux.Flux: NNlib, relu

struct Store
    gradient::Matrix{Float32}
end

# The module for one width, that of this processor the package's own, and what it does with a gradient here.
function kernels_of(lanes)
    source = joinpath(pkgdir(PhotoFlux), "julia", "kernels", "all.jl")
    body = quote
        const LANES = $lanes
        include($source)
    end
    K = lanes == Kernels.LANES ? Kernels : Core.eval(Module(), Expr(:module, true, Symbol(:Kernels, lanes), body))
    Core.eval(K, :(apply_block!(target::$Store, w, dw, offset, n) =
        (unsafe_copyto!(pointer(target.gradient, offset + 1), dw, n); Float32(n))))
    return K
end

const WIDTHS = (4, 8, 16)
const KERNELS = map(kernels_of, WIDTHS)

random(seed, dims...) = randn(Xoshiro(seed), Float32, dims...)

# A sum of n products rounds at most n times, each time by eps of the partial sum.
close(ours, truth, terms) = size(ours) == size(truth) && maximum(abs, ours .- truth; init=0.0) <=
    terms * eps(Float32) * max(maximum(abs, truth; init=0.0), 1.0)

function check_convolution(K, sizes, channels, forward!, backward!)
    inputs, outputs = channels
    weight, bias = random(1, 3, 3, inputs, outputs), random(2, outputs)
    for (width, height, images) in sizes
        x, dy = random(3, width, height, inputs, images), random(4, width, height, outputs, images)
        dims = NNlib.DenseConvDims(x, weight; padding=1, flipkernel=true)
        z = NNlib.conv(Float64.(x), Float64.(weight), dims) .+ reshape(bias, 1, 1, :, 1)
        y, buffers = similar(dy), K.Buffers()
        forward!(y, x, weight, bias, true, buffers, :a)
        # A value near 0 may be on the other side of it after rounding, so the mask of the gradients is ours.
        @test close(y, relu.(z), 9inputs + 1)
        masked = dy .* (y .> 0)
        dx, dw, db = similar(x), similar(weight), similar(bias)
        backward!(dx, dw, db, x, weight, y, dy, true, buffers, :a)
        @test close(dx, NNlib.∇conv_data(Float64.(masked), Float64.(weight), dims), 9outputs)
        @test close(dw, NNlib.∇conv_filter(Float64.(x), Float64.(masked), dims), width * height * images)
        @test close(db, vec(sum(Float64, masked; dims=(1, 2, 4))), width * height * images)
    end
end

@testset "$lanes lanes" for (lanes, K) in zip(WIDTHS, KERNELS)
    @test K.LANES == lanes

    @testset "direct convolution, $channels" for channels in (1 => 1, 3 => 16, 2 => 5, 8 => 9)
        check_convolution(K, [(1, 1, 1), (5, 3, 2), (15, 4, 1), (49, 30, 3), (90, 11, 2)], channels, K.correlate!, K.correlate_gradients!)
    end

    @testset "Winograd's convolution, $channels" for channels in (lanes => 2lanes, 3lanes => lanes)
        @test K.suits_winograd(lanes, channels...) && !K.suits_winograd(lanes - 1, channels...)
        sizes = [(lanes, 1, 1), (lanes + 1, 5, 2), (2lanes + 3, 18, 3)]
        check_convolution(K, sizes, channels, K.winograd!, K.winograd_gradients!)
    end

    # The same sums in the same order, so nothing differs. Sizes of one tile and of several, odd ones.
    @testset "convolution and max-pooling in one, $width×$height" for (width, height) in ((2, 3), (17, 6), (33, 21), (90, 40))
        x, weight, bias = random(1, width, height, 3, 3), random(2, 3, 3, 3, 16), random(3, 16)
        buffers, pooled = K.Buffers(), (width ÷ 2, height ÷ 2, 16, 3)
        y = K.correlate!(zeros(Float32, width, height, 16, 3), x, weight, bias, true, buffers, :a)
        apart, chosen = K.pool!(zeros(Float32, pooled), zeros(UInt8, pooled), y)
        @test apart == NNlib.maxpool(y, (2, 2))
        fused, chosen_too = zeros(Float32, pooled), zeros(UInt8, pooled)
        K.correlate!(fused, x, weight, bias, true, buffers, :b, chosen_too)
        @test fused == apart
    end

    # Both ways through a kernel of whole vectors, and that of BLAS.
    @testset "dense, $units units, $inputs inputs, $images images" for
            (units, inputs) in ((128, 70), (64, 66_001), (128, 33_001), (10, 30), (1, 7)), images in (1, 6, 35)
        W, x, dy = random(1, units, inputs), random(2, inputs, images), random(3, units, images)
        y, dx, dw, buffers = similar(dy), similar(x), similar(W), K.Buffers()
        @test K.is_large(W) == (units * inputs > 2^22)
        K.dense_product!(y, W, x, buffers, :a)
        @test close(y, Float64.(W) * x, inputs)
        @test K.dense_gradients!(dx, Store(dw), W, x, dy, buffers, :a) == length(W)
        @test close(dx, Float64.(W)' * dy, units)
        @test close(dw, Float64.(dy) * x', images + 1)
    end

    @testset "a NaN is not hidden by the ReLU, $channels channels" for channels in (1, lanes)
        x, weight = fill(NaN32, 2lanes, 4, channels, 1), random(1, 3, 3, channels, channels)
        forward! = channels == 1 ? K.correlate! : K.winograd!
        @test all(isnan, forward!(zeros(Float32, size(x)), x, weight, zeros(Float32, channels), true, K.Buffers(), :a))
    end
end

# Through every strip and block: outputs in less than a vector, in several strips and groups, pixels in blocks and one by one.
function check_pointwise(K, taps, outputs, pixels; group)
    weight, bias, x, prior = random(1, taps, outputs), random(2, outputs), random(3, taps, pixels), random(4, outputs, pixels)
    kernel = K.PackedPointwise(weight, bias, group)
    padded = cld(outputs, K.LANES) * K.LANES
    before, after = zeros(Float32, padded, 2pixels), fill(NaN32, padded, 2pixels)
    before[1:outputs, 1:2:end] .= prior
    # Every other pixel of the output, and the taps in reverse.
    places, order = collect(range(0; step=2padded, length=pixels)), collect((taps - 1):-1:0)
    expected = Float64.(weight)' * reverse(x; dims=1) .+ bias
    for clamped in (false, true), added in (false, true)
        GC.@preserve kernel before after places order x for strip in kernel.strips
            K.pointwise!(K.Places(pointer(after), pointer(places), pointer(x), taps, pointer(order), added ? pointer(before) : K.NULL),
                kernel, strip, pixels, clamped)
        end
        sums = added ? expected .+ prior : expected
        @test close(after[1:outputs, 1:2:end], clamped ? clamp6.(sums) : sums, taps + 2)
        # Nothing is written between the pixels, and 0 or less for channels past the last.
        @test all(isnan, after[:, 2:2:end]) && all(==(0), after[(outputs + 1):end, 1:2:end])
    end
end

function check_depthwise(K, k, stride, width, channels)
    padded = cld(channels, K.LANES) * K.LANES
    weight, bias = random(1, k, k, channels), random(2, channels)
    kernel = K.PackedDepthwise(weight, bias, stride)
    row = (width - 1) * stride + k
    x, y = zeros(Float32, padded, row, k), fill(NaN32, padded, width)
    x[1:channels, :, :] .= random(3, channels, row, k)
    GC.@preserve kernel x y K.depthwise_row!(K.DepthwiseRow(pointer(y), padded, pointer(x), padded, padded * row,
        pointer(kernel.weights), pointer(kernel.bias), padded ÷ K.LANES), width, k, stride)
    expected = [bias[c] + sum(Float64(x[c, (i - 1) * stride + ki, kj]) * weight[ki, kj, c] for ki in 1:k, kj in 1:k) for c in 1:channels, i in 1:width]
    @test close(y[1:channels, :], clamp6.(expected), k^2 + 1)
    @test all(==(0), y[(channels + 1):end, :])
end

# Each of so many layers rounds its sums and passes on what it was given with a gain of about 1.5.
function check_network(K, size_, blocks; images=2, channels=3, type=UInt8, stem=16)
    network, weights = random_network(K, size_, blocks; stem)
    x = type.(rand(Xoshiro(5), UInt8, size_..., channels, images))
    found, features = K.bottleneck_activations(network, x, K.Buffers(), :a)
    for n in 1:images
        image = repeat(x[:, :, :, n], 1, 1, 3 ÷ channels)
        expected = network_truth(image, weights, blocks)
        @test all(close(ours[:, :, :, n], truth, 100length(weights)) for (ours, truth) in zip(found, expected))
        @test close(features[:, n], last(expected), 100length(weights))
    end
    @test K.bottleneck_features!(zeros(Float32, size(features)), network, x, K.Buffers(), :b) == features
    return network
end

@testset "$lanes lanes, backbones" for (lanes, K) in zip(WIDTHS, KERNELS)
    @testset "pointwise, $taps taps, $outputs outputs" for (taps, outputs) in ((1, 1), (27, 2lanes), (5, 3lanes + 1), (16, 4lanes), (40, 7lanes - 3), (3, 11lanes)),
        group in (typemax(Int), K.CHUNK)

        foreach(pixels -> check_pointwise(K, taps, outputs, pixels; group), (1, 3, 8, 23))
    end

    @testset "depthwise $k×$k, stride $stride" for k in (3, 5), stride in (1, 2)
        for width in (1, 2, 3, 4, 5, 6, 7, 11, 33), channels in (1, lanes, 2lanes + 3)
            check_depthwise(K, k, stride, width, channels)
        end
        @test K.has_depthwise_kernel(k, stride) && !K.has_depthwise_kernel(7, stride) && !K.has_depthwise_kernel(k, 3)
    end

    every_kind = [(1, 3, 1, 16), (6, 3, 2, 24), (3, 3, 1, 24), (2, 5, 2, 40), (6, 5, 1, 40), (5, 3, 1, 12)]
    @testset "a network, $(join(size_, '×'))" for size_ in ((1, 1), (2, 7), (31, 18), (64, 64))
        check_network(K, size_, every_kind)
    end
    check_network(K, (20, 20), every_kind; channels=1)
    check_network(K, (20, 20), every_kind; type=Float32)
    check_network(K, (9, 9), [(1, 3, 1, 13), (3, 5, 1, 13), (2, 3, 2, 7)]; stem=5)
    # Several bands, the last of them shorter.
    bands = check_network(K, (90, 262), [(6, 3, 1, 16), (6, 5, 2, 8)]; images=1)
    @test all(block -> block.rows < block.window.out_height && block.window.out_height % block.rows != 0, bands.blocks)
end
