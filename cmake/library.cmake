# library: libkeel.so and libkeel.a over the objects that the binary has, what is installed, and the tests of both.
#
# Both hold the API (src/library) and what it reaches, no more: the archive of all parts is searched, not taken
# whole. Of the names in them only keel_* are visible: the shared library has a version script beside -fvisibility,
# the static one is a single object in which the hidden names were made local, so that no name of Keel's can meet one
# of the program's.
find_program(OBJCOPY objcopy REQUIRED)

add_library(keel_api OBJECT ${LIBRARY_SOURCES})
set_target_properties(keel_api PROPERTIES POSITION_INDEPENDENT_CODE ON)
target_link_libraries(keel_api PRIVATE keel_static)

add_library(keel_shared SHARED $<TARGET_OBJECTS:keel_api>)
add_library(keel::keel ALIAS keel_shared)
set(SYMBOLS ${CMAKE_SOURCE_DIR}/cmake/libkeel.map)
set_target_properties(
  keel_shared
  PROPERTIES OUTPUT_NAME keel
             EXPORT_NAME keel
             LINKER_LANGUAGE C
             VERSION ${PROJECT_VERSION}
             SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR} # no promise between minors before 1.0
             LINK_DEPENDS ${SYMBOLS})
target_link_libraries(keel_shared PRIVATE $<BUILD_INTERFACE:keel_static>)
target_link_options(keel_shared PRIVATE -Wl,--version-script=${SYMBOLS} -Wl,--no-undefined -Wl,--as-needed)
target_include_directories(keel_shared INTERFACE $<BUILD_INTERFACE:${CMAKE_SOURCE_DIR}/include>
                                                 $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)

set(ARCHIVE ${CMAKE_BINARY_DIR}/libkeel.a)
add_custom_command(
  OUTPUT ${ARCHIVE}
  COMMAND ${CMAKE_COMMAND} -E rm -f ${ARCHIVE}
  COMMAND ${CMAKE_C_COMPILER} -r -nostdlib -o libkeel.o $<TARGET_OBJECTS:keel_api> $<TARGET_FILE:keel_static>
  COMMAND ${OBJCOPY} --localize-hidden libkeel.o
  COMMAND ${CMAKE_AR} rcs ${ARCHIVE} libkeel.o
  COMMAND ${CMAKE_COMMAND} -E rm -f libkeel.o
  DEPENDS keel_api keel_static $<TARGET_OBJECTS:keel_api>
  COMMAND_EXPAND_LISTS VERBATIM)
add_custom_target(keel_archive ALL DEPENDS ${ARCHIVE})

# ---- installing. keel.pc and the package find themselves, so that an installed tree can be moved.
include(CMakePackageConfigHelpers)
list(JOIN MODULES ", " LIBRARY_REQUIRES)
set(LIBRARY_LINKS "-ldnnl -lutf8proc -lgomp -lm -lpthread")
set(PACKAGE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/keel)
file(RELATIVE_PATH PC_TO_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(cmake/keel.pc.in ${CMAKE_BINARY_DIR}/keel.pc @ONLY)
configure_package_config_file(cmake/keelConfig.cmake.in ${CMAKE_BINARY_DIR}/keelConfig.cmake
                              INSTALL_DESTINATION ${PACKAGE_DIR} PATH_VARS CMAKE_INSTALL_LIBDIR
                                                                           CMAKE_INSTALL_INCLUDEDIR)
write_basic_package_version_file(${CMAKE_BINARY_DIR}/keelConfigVersion.cmake COMPATIBILITY SameMinorVersion)

install(TARGETS keel RUNTIME)
install(TARGETS keel_shared EXPORT keel LIBRARY)
install(FILES ${ARCHIVE} DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/keel DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT keel NAMESPACE keel:: FILE keelTargets.cmake DESTINATION ${PACKAGE_DIR})
install(FILES ${CMAKE_BINARY_DIR}/keelConfig.cmake ${CMAKE_BINARY_DIR}/keelConfigVersion.cmake
        DESTINATION ${PACKAGE_DIR})
install(FILES ${CMAKE_BINARY_DIR}/keel.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(DIRECTORY configs DESTINATION ${CMAKE_INSTALL_DATADIR}/keel)
install(DIRECTORY examples DESTINATION ${CMAKE_INSTALL_DOCDIR})
# Written by `keel` itself while building, where it does.
install(DIRECTORY ${CMAKE_BINARY_DIR}/man/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 OPTIONAL FILES_MATCHING
        PATTERN "*.1")
set(COMPLETIONS ${CMAKE_BINARY_DIR}/completions)
install(FILES ${COMPLETIONS}/keel.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME keel
        OPTIONAL)
install(FILES ${COMPLETIONS}/_keel DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions OPTIONAL)
install(FILES ${COMPLETIONS}/keel.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d OPTIONAL)

# ---- tests: the library through its header alone; with faults, which needs what is below it; and the installed tree
# as a stranger's program meets it
if(KEEL_TESTS)
  pkg_check_modules(CMOCKA REQUIRED IMPORTED_TARGET cmocka)
  add_executable(test_library tests/test_library.c)
  target_link_libraries(test_library PRIVATE keel_shared PkgConfig::CMOCKA OpenMP::OpenMP_C pthread m)
  target_compile_definitions(test_library PRIVATE KEEL_BINARY="$<TARGET_FILE:keel>")
  add_executable(test_library_faults tests/test_library_faults.c $<TARGET_OBJECTS:keel_api>)
  target_link_libraries(test_library_faults PRIVATE keel_static PkgConfig::CMOCKA)
  add_test(NAME test_library COMMAND test_library)
  add_test(NAME test_library_faults COMMAND test_library_faults)
  add_test(NAME install COMMAND sh ${CMAKE_SOURCE_DIR}/tests/install.sh ${CMAKE_BINARY_DIR} ${CMAKE_SOURCE_DIR}
                                $<BOOL:${KEEL_SANITIZE}>)
  set_tests_properties(test_library test_library_faults install PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77 ENVIRONMENT
                                                                           OMP_WAIT_POLICY=passive)
endif()
