import numpy as np
import pytest

from onboard.simulator.anomalies import LOOK_ALIKES
from onboard.simulator.dataset import tiles
from onboard.simulator.errors import SimulatorError
from onboard.simulator.family import CLASSES, IGNORE, TEST, TRAIN, family_of
from onboard.simulator.given_dem import survey_dem
from onboard.simulator.noise import Window, fractal, hash_uniform, octave
from onboard.simulator.world import World


def small_world(seed: int = 4, family: str = "train") -> World:
    return World(seed, family, size_m=160.0, planted_m=(60.0, 60.0), anomalies_per_ha=20.0)


def patch_window(world: World, patch_index: int = 0, gsd_m: float = 0.1) -> Window:
    patch = world.anomalies[patch_index]
    size = int(2 * (patch.reach_m + 2) / gsd_m)
    half = size * gsd_m / 2
    return Window(patch.x_m - half, patch.y_m + half, gsd_m, size, size)


def test_lattice_noise_is_uniform_and_uncorrelated() -> None:
    i, j = np.meshgrid(np.arange(-200, 200), np.arange(-200, 200))
    draws = hash_uniform(i, j, 11)
    assert abs(float(draws.mean())) < 0.01
    assert abs(float(draws.std()) - 3**-0.5) < 0.01
    assert abs(float((draws[:, 1:] * draws[:, :-1]).mean())) < 0.01
    assert not np.array_equal(draws, hash_uniform(i, j, 12))


def test_noise_at_a_ground_point_does_not_depend_on_the_window_or_its_resolution() -> None:
    coarse = Window(500000.0, 4150000.0, 0.2, 50, 40)
    fine = Window(500000.0, 4150000.0, 0.05, 200, 160)
    np.testing.assert_allclose(octave(fine, 3.0, 5)[::4, ::4], octave(coarse, 3.0, 5), atol=1e-4)
    part = fine.part(40, 60, 50, 70)
    whole = fractal(fine, 9, 4.0, 0.3)
    np.testing.assert_allclose(fractal(part, 9, 4.0, 0.3), whole[40:90, 60:130], atol=1e-4)


def test_textures_finer_than_two_pixels_fade_out_instead_of_aliasing() -> None:
    coarse = Window(500000.0, 4150000.0, 1.0, 80, 80)
    only_fine = fractal(coarse, 3, 1.2, 0.1)
    assert float(np.abs(only_fine).max()) == 0.0


@pytest.mark.parametrize("family", ["train", "test"])
def test_a_world_is_the_same_for_the_same_seed_and_another_for_another(family: str) -> None:
    one, again, other = (small_world(seed, family) for seed in (4, 4, 5))
    assert [p.x_m for p in one.patches] == [p.x_m for p in again.patches]
    np.testing.assert_array_equal(one.relief.z_m, again.relief.z_m)
    window = patch_window(one)
    np.testing.assert_array_equal(one.paint(window).radiance, again.paint(window).radiance)
    assert not np.allclose(one.relief.z_m, other.relief.z_m)


def test_families_share_no_colour_no_terrain_parameter_and_no_texture_recipe() -> None:
    reach = TRAIN.colour_jitter + TEST.colour_jitter
    for material, anchors in TEST.colours.items():
        for anchor in anchors:
            near = [np.abs(np.subtract(anchor, a)).max() for a in TRAIN.colours[material]]
            assert min(near) > reach, (material, anchor)
    for name in ("spectral_slope", "relief_m", "gully_m", "gain"):
        for low, high in getattr(TEST, name):
            for other_low, other_high in getattr(TRAIN, name):
                assert high < other_low or low > other_high, name
    assert TRAIN.lacunarity != TEST.lacunarity
    assert TRAIN.salt != TEST.salt


def test_worlds_have_every_class_and_look_alikes_that_are_not_labelled() -> None:
    world = World(2, "test", size_m=240.0, planted_m=(160.0, 160.0), anomalies_per_ha=12.0)
    assert {p.material for p in world.anomalies} == set(CLASSES[1:])
    others = [p for p in world.patches if not p.is_anomaly]
    assert {p.material for p in others} <= set(LOOK_ALIKES)
    assert len(others) > 5


def test_anomalies_look_like_their_class_and_stand_out_from_the_ground() -> None:
    world = World(3, "test", size_m=240.0, planted_m=(160.0, 160.0), anomalies_per_ha=12.0)
    for k, patch in enumerate(world.anomalies):
        painted = world.paint(patch_window(world, k))
        inside = (painted.label > 0) & (painted.opacity > 0.7) & (painted.hidden < 0.1)
        outside = (painted.opacity < 0.05) & (painted.hidden < 0.1)
        if inside.sum() < 30:
            continue
        red, green, blue = np.median(painted.radiance[inside], axis=0)
        ground = np.median(painted.radiance[outside], axis=0)
        match patch.material:
            case "iron_oxide":
                assert red / blue > 1.5 * ground[0] / ground[2]
            case "bleached_quartz":
                assert red + green + blue > 1.5 * ground.sum()
            case "dark_disturbed":
                assert red + green + blue < 0.6 * ground.sum()


def test_nothing_is_pure_black_and_whites_are_rare() -> None:
    world = small_world(6)
    x, y = world.centre_xy_m
    radiance = world.paint(Window(x - 20, y + 20, 0.1, 400, 400)).radiance
    assert float(radiance.min()) > 0
    assert float((radiance > 1.05).mean()) < 0.02


def test_slopes_stay_below_what_nadir_rays_meet_once() -> None:
    for seed in range(4):
        z = World(seed, "train", size_m=200.0).relief.z_m
        assert float(np.quantile(np.hypot(*np.gradient(z)), 0.999)) < 0.75


@pytest.mark.parametrize("sigma_m", [0.8, 1.5])
def test_the_given_dem_errs_by_the_sigma_that_it_states(sigma_m: float) -> None:
    rough, levels = [], []
    for seed in range(4):
        world = World(seed, "test", size_m=300.0)
        dem = survey_dem(world, sigma_m, 1.7, 1.0, np.random.default_rng(seed))
        x, y = np.meshgrid(dem.window.x_m, dem.window.y_m)
        off = dem.z_m - world.height_m(x, y)
        levels.append(off.mean())
        rough.append(off.std())
    assert abs(np.mean(levels) - 1.7) < 0.2
    assert abs(np.sqrt(np.mean(np.square(rough))) - sigma_m) < 0.15 * sigma_m


def test_voids_are_missing_posts() -> None:
    dem = survey_dem(small_world(), 0.8, 0.0, 1.0, np.random.default_rng(1), voids=3)
    assert np.isnan(dem.z_m).sum() >= 9


def test_training_tiles_are_labelled_reproducible_and_ignored_only_at_edges() -> None:
    first = list(tiles(3, seed=1))
    again = next(tiles(1, seed=1))
    np.testing.assert_array_equal(first[0].image, again.image)
    pixels = np.zeros(256, dtype=np.int64)
    for tile in first:
        assert tile.image.shape == (512, 512, 3)
        assert 40 < tile.image.mean() < 190
        pixels += np.bincount(tile.mask.ravel(), minlength=256)
    assert set(np.flatnonzero(pixels)) <= {0, 1, 2, 3, IGNORE}
    assert (pixels[1:4] > 100).sum() >= 2
    assert pixels[IGNORE] < 0.5 * pixels[1:4].sum()
    assert len({tile.stem for tile in first}) == 3


def test_an_unknown_family_is_refused_by_name() -> None:
    with pytest.raises(SimulatorError, match="'mars'"):
        family_of("mars")
