// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

/// @title The code behind every user's deposit address.
/// @notice It has no key and one destination, so anyone may call it and nobody gains by doing so.
contract DepositForwarder {
    using SafeERC20 for IERC20;

    address public immutable SETTLEMENT;

    constructor(address settlement) {
        SETTLEMENT = settlement;
    }

    /// @return amount What lay here, now in the settlement contract; zero is not an error.
    function forward(IERC20 token) external returns (uint256 amount) {
        amount = token.balanceOf(address(this));
        if (amount > 0) token.safeTransfer(SETTLEMENT, amount);
    }
}
