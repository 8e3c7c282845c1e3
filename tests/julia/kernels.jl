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
