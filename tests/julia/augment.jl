using PhotoFlux: Augmentation, augment!, derived_rng, draw_augmentation

const image = rand(Xoshiro(1), UInt8, 9, 7, 3)
transform(x, args...) = augment!(zeros(Float32, size(x)), x, Augmentation(args...))

# Exact where the map hits pixel centres; a quarter turn's sine is off by 1 eps, times 255 and a distance of 4 pixels.
@testset "transformations that can be written down" begin
    @test transform(image, false, false, 0.0f0, 1.0f0) == image
    @test transform(image, true, false, 0.0f0, 1.0f0) == reverse(image; dims=1)
    @test transform(image, false, true, 0.0f0, 1.0f0) == reverse(image; dims=2)
    @test transform(image, true, true, 0.0f0, 1.0f0) ≈ transform(image, false, false, Float32(π), 1.0f0) atol = 2e-3
    square = image[1:7, :, :]
    turned = stack(rotl90(square[:, :, k]) for k in 1:3)
    # From x towards y: what lay at the right end of the middle row is fetched by the bottom of the middle column.
    @test transform(square, false, false, -Float32(π / 2), 1.0f0) ≈ turned atol = 2e-3
end

@testset "zoom by 3 about the centre, nearest fill" begin
    line = reshape(UInt8[10, 20, 30, 40, 50], 5, 1, 1)
    @test vec(transform(line, false, false, 0.0f0, 3.0f0)) == [10, 10, 30, 50, 50]
    @test vec(transform(line, false, false, 0.0f0, 0.5f0)) == [20, 25, 30, 35, 40]
end

# The three layers one after the other on coordinates, in Float64, with bilinear interpolation written out.
@testset "composition of flip, rotation and zoom" begin
    angle, zoom = 0.4, 1.07
    w, h, _ = size(image)
    function expected(i, j, k)
        x, y = zoom * (i - (w + 1) / 2), zoom * (j - (h + 1) / 2)
        x, y = cos(angle) * x - sin(angle) * y, sin(angle) * x + cos(angle) * y
        x, y = clamp(-x + (w + 1) / 2, 1, w), clamp(y + (h + 1) / 2, 1, h)
        corner(a, b) = Float64(image[clamp(a, 1, w), clamp(b, 1, h), k])
        a, b = floor(Int, x), floor(Int, y)
        (1 - (y - b)) * ((1 - (x - a)) * corner(a, b) + (x - a) * corner(a + 1, b)) +
        (y - b) * ((1 - (x - a)) * corner(a, b + 1) + (x - a) * corner(a + 1, b + 1))
    end
    # A coordinate of at most 9 is off by a few eps, times differences of at most 255.
    @test transform(image, true, false, Float32(angle), Float32(zoom)) ≈ [expected(i, j, k) for i in 1:w, j in 1:h, k in 1:3] atol = 5e-3
end

@testset "what is drawn" begin
    drawn = [draw_augmentation(derived_rng(1, "augment", 1, n)) for n in 1:2000]
    @test maximum(a -> abs(a.angle), drawn) <= 0.2π
    @test all(a -> 0.9 <= a.zoom <= 1.1, drawn)
    # 2000 fair coins: within five standard deviations of a half.
    @test all(f -> abs(count(f, drawn) / 2000 - 0.5) < 0.056, (a -> a.flip_x, a -> a.flip_y, a -> a.angle > 0, a -> a.zoom > 1))
    @test allunique(a.angle for a in drawn[1:50])
end

@test_throws DimensionMismatch augment!(zeros(Float32, 3, 3, 3), image, Augmentation(false, false, 0, 1))
@test all(<=(255), transform(image, false, true, 0.3f0, 0.93f0))
