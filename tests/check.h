/* check: cmocka and the two assertions every test of statuses needs.
 *
 *     assert_ok(file_read(path, &data, &bytes));
 *     assert_fails(isa_parse("v9", &level), ERR_USAGE, "no instruction-set level 'v9'; ...");   // whole
 * message
 */
#pragma once
#include "base/base.h"
#include <setjmp.h>
#include <cmocka.h>

#define assert_ok(call)                                                                                      \
    do {                                                                                                     \
        status assert_status_ = (call);                                                                      \
        if (assert_status_) fail_msg("%s: %s", #call, assert_status_->message);                              \
    } while (0)
#define assert_fails(call, wanted_code, wanted)                                                              \
    do {                                                                                                     \
        status assert_status_ = (call);                                                                      \
        assert_non_null(assert_status_);                                                                     \
        assert_string_equal(assert_status_->message, wanted);                                                \
        assert_int_equal(assert_status_->code, wanted_code);                                                 \
        status_drop(assert_status_);                                                                         \
    } while (0)
